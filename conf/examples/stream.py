"""A streaming client: pip install openai; python stream.py "Tell me about rivers."

It asks $OPENAI_BASE_URL (the proxy on this machine, if that is not set) with $OPENAI_API_KEY.
"""

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),  # a virtual key, where the proxy has some
)
question = {"role": "user", "content": " ".join(sys.argv[1:]) or "Hello"}
model = os.environ.get("MODEL", "gpt-4o-mini")
# Leaving the block closes the connection, also by Ctrl-C: the proxy stops the model at once.
with client.chat.completions.create(model=model, messages=[question], stream=True) as stream:
    for chunk in stream:
        if chunk.choices:  # the last chunk may hold nothing but usage
            print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
