"""The question: a protocol, and the study that carries it out."""
