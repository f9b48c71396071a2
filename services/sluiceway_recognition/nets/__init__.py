"""The built-in text recognisers as torch modules: backbone, neck and head, named as the papers name them.

Batch normalisation and re-parameterised branches are folded into the convolutions, as in the exported weights, so these
modules are for inference. Shapes are static for static inputs: nothing synchronises with the host.
"""
