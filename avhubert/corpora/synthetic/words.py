# ruff: noqa: SIM905  lists of a thousand words are read more easily without quotes
"""Word lists for the sentences of the synthetic corpus; regular forms are derived from them."""

from __future__ import annotations

# plural with s
NOUNS = tuple(
    """
    actor airport apple arm artist aunt baker ball band bank basket bear bed bell bird blanket boat book boot bottle
    bowl boy bridge brother bucket builder button cake camera camp candle car card carpet cart castle cat chair chicken
    cinema circle clock cloud coat coin college computer cook corner cottage cousin cow crowd crown cup curtain dancer
    daughter dentist desk diamond doctor dog doll door dragon drawer dream driver drum duck eagle egg elephant engine
    farmer father feather field finger fire flag floor flower forest fork fountain friend frog game garage garden gate
    girl goat guard guest guitar hammer hand harbour hat hill hospital hotel hunter island jacket judge kettle king
    kitchen kite ladder lake lamp lawyer leader lemon letter lion lock machine magnet map market meadow medal mirror
    model monkey moon morning mother motor mountain museum napkin nephew night nurse ocean office orange oven owl
    painter palace paper parcel parent parrot path pencil pepper picture pilot pillow planet plate player pocket poet
    pond potter prince printer prisoner pupil queen rabbit radio raincoat record ribbon river road robot rocket roof
    room rope sailor salad school scooter seal secret shadow shepherd ship shirt shop shoulder sister soldier son
    spider spoon squirrel stable station statue stone storm street student sweater table tailor tailcoat teacher
    temple tent theatre ticket tiger tiler tower town toy tractor train tree tunnel turtle uncle valley village
    visitor waiter wall wallet whale wheel window winner wizard writer acorn ankle apron archer barn basin
    beak beetle blazer bonnet border bracelet brick broom cabin cable calendar canal cannon carrot ceiling
    cellar chain champion chapter cheetah chimney closet collar comet corridor cradle crayon cricket
    cushion detective dolphin donkey elbow envelope explorer falcon ferret fiddle flute folder furnace
    gardener giraffe glacier goblet gorilla hamster helmet hedgehog igloo jungle kangaroo kitten lantern
    """.split()
)
# past tense with ed, or d after an e
VERBS = tuple(
    """
    accept admire answer ask avoid bake blame borrow call change check clean close collect cook count cover defend
    deliver describe design discover discuss enjoy examine expect explain explore follow guard guide hammer help
    hire ignore improve invite join jump kick lift like lock measure mention move need notice offer open order paint
    pick prepare print protect pull raise receive remember remove repair repeat rescue respect return save
    select shake share show smell sort start support surprise test thank touch train trust turn use visit walk want
    warn welcome wonder wrap
    """.split()
)
IRREGULAR = {"shake": "shook", "wrap": "wrapped"}
ADJECTIVES = tuple(
    """
    able ancient angry awful bad beautiful big bitter black blue bold brave bright broken brown busy calm careful cheap
    cheerful clean clever cold common cool correct curious dark dear deep different dirty dry early empty equal famous
    fancy fast final fine firm flat fresh friendly full funny gentle giant glad golden good grand great green grey
    happy hard heavy hidden high hollow honest huge hungry important jolly kind large late lazy light little local
    lonely long loose loud lovely lucky mad modern narrow nasty neat new nice noisy odd old open ordinary pale patient
    perfect plain pleasant poor precious pretty private proud public pure purple quick quiet rapid rare ready real red
    rich right ripe rough round royal sad safe secret serious shallow sharp short shy sick silent silly silver simple
    single slim slow small smart smooth soft solid sour special square steady steep still strange strict strong
    stupid sudden sweet tall tame tender terrible thick thin tidy tiny tired tough ugly usual useful warm weak wet
    white whole wide wild wise wonderful wooden wrong yellow young
    """.split()
)
NAMES = tuple(
    """
    adam alice anna arthur bella ben bruno clara daisy daniel david diana edward ella emma eric felix fiona frank
    george grace harry helen henry ivan jack james jane julia karen kevin laura leo linda lucy maria martin mary
    michael nina nora oliver oscar paul peter robert rosa sam sarah simon sofia susan thomas victor walter
    """.split()
)
ADVERBS = tuple(
    """
    again already always badly calmly carefully clearly daily eagerly easily finally gladly happily
    kindly later loudly nearly never neatly now often politely proudly quickly quietly rarely really
    sadly safely seldom slowly softly sometimes soon suddenly together today tomorrow usually yesterday
    """.split()
)
PREPOSITIONS = tuple("above across against along around before behind below beside beyond near under without".split())
NUMBERS = tuple("two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty".split())
CONJUNCTIONS = tuple("because while after although until whenever and but".split())
MODALS = tuple("can could may might must should will would".split())
DETERMINERS = tuple("the this that every another each my your his her our their".split())
MANY = tuple("some many few several most these those all".split())
PRONOUNS = tuple("they we you i".split())

# commands in another alphabet, with slots like GRID's
RUSSIAN: tuple[tuple[str, ...], ...] = (
    ("возьми", "положи", "поставь", "найди"),
    ("белый", "красный", "синий", "чёрный", "жёлтый"),
    ("стол", "мяч", "дом", "поезд", "цветок", "шар", "ключ", "хлеб"),
    ("около", "возле", "после", "вместо"),
    ("номера",),
    ("ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять"),
    ("опять", "сейчас", "скоро", "пожалуйста"),
)
