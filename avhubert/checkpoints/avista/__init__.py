"""AVista models: AV-HuBERT in the layout of the Hugging Face library transformers, read and written without it.

- `names`: the table between our tensor names and theirs.
- `config`: `config.json` and `preprocessor_config.json`, translated to our configuration.
- `tokenizer`: `tokenizer.json` becomes a SentencePiece model.
- `weights`: `model.safetensors` or `pytorch_model.bin` as tensors by name.
- `read`: a folder becomes a model or a model directory.
- `write`: a converted model directory becomes such a folder again.

No code of such a folder is ever run.
"""
