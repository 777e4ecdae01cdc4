"""What Lucid's example script does to get a token from its file while it is good: open, parse, compare.

example.py FILE prints the nanoseconds that this takes, the least of many rounds."""
import json
import sys
import time
from datetime import datetime


def get_token(path):
    with open(path) as file:
        token_info = json.load(file)
    if datetime.now() < datetime.fromisoformat(token_info["expiration"]):
        return token_info["access_token"]
    raise SystemExit("the token in " + path + " has expired")


def measure(path, calls):
    began = time.perf_counter_ns()
    for _ in range(calls):
        get_token(path)
    return (time.perf_counter_ns() - began) / calls


print(min(measure(sys.argv[1], 100) for _ in range(300)))
