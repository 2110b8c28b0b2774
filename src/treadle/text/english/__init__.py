"""Words and sentences of English text by the rules of spaCy's English tokenizer, compiled."""
