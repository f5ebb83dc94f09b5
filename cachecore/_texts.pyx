"""Of a batch of inputs, whether all are text: asked before every look-up of an EmbeddingCache."""


def all_texts(list inputs not None):
    """True when every input is exactly a str or bytes, of no subclass; O(n), some ns each."""
    for each in inputs:
        if type(each) is not str and type(each) is not bytes:
            return False
    return True
