"""The domain: one turn of a FAQ chat, from the messages that came to the answer, its tokens and its log record."""
