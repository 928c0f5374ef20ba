"""Published AV-HuBERT checkpoints and configurations, read and written without fairseq and omegaconf.

- `names`: the table between our tensor names and the published ones.
- `config`: the configuration inside a checkpoint, translated in both directions.
- `objects`: the Python objects inside a checkpoint, without the classes that they name.
- `extras`: the parts of a checkpoint that a model directory does not need.
- `read`: a checkpoint becomes a model or a model directory.
- `write`: a model directory becomes a checkpoint.
- `presets`: a YAML configuration of the published project becomes one of ours.
"""
