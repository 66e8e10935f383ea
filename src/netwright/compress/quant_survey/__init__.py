"""One quantiser, all its settings. `QuantSurvey` applies one of them, `Ablation` ranks them on a network.

A Survey of Quantization Methods for Efficient Neural Network Inference, arXiv 2103.13630.
"""

from netwright.compress.quant_survey.ablation import Ablation
from netwright.compress.quant_survey.method import QuantSurvey

__all__ = ["Ablation", "QuantSurvey"]
