"""Read an ONNX file into a plain, trainable torch module."""

from netwright.core.files.onnx_import.reader import read_onnx

__all__ = ["read_onnx"]
