"""Models on disk and on the Hugging Face Hub: model directories, published checkpoints, ONNX."""
