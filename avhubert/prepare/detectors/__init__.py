"""Face detectors and landmark models, one file each; `selection` selects one."""
