"""How units are followed through a graph: the labels of activations, and a rule for every operator."""
