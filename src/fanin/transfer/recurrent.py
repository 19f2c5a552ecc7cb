"""A recurrent gate has two biases in some frameworks and one in others, which is their sum."""


def beside(name: str) -> str | None:
    """What the other bias of a gate is called; None for what is no such bias.

    >>> beside("lstm.bias_ih.forget_gate"), beside("lstm.bias_hh.forget_gate"), beside("fc.bias")
    ('lstm.bias_hh.forget_gate', 'lstm.bias_ih.forget_gate', None)
    """
    words = name.split(".")
    for one, other in (("bias_ih", "bias_hh"), ("bias_hh", "bias_ih")):
        if one in words:
            words[words.index(one)] = other
            return ".".join(words)
    return None


def is_first(name: str) -> bool:
    """Whether it is the bias that a gate has in every framework."""
    return "bias_ih" in name.split(".")


def is_inner(name: str, layer: str) -> bool:
    """Whether the state's bias of this gate is multiplied before it is added: no sum can stand for it."""
    return layer == "gru" and name.endswith(".new_gate")
