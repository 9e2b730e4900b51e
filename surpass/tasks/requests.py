"""Short customer requests from templates: twelve intents that a system was made for, three that it
was not."""

from __future__ import annotations

import numpy as np

__all__ = ["FAMILIAR", "NOVEL", "requests"]

_BODIES = {
    "balance": ("show the balance of my {account}", "how much is left on my {account}",
                "what is the amount on the {account}"),
    "transfer": ("transfer {sum} to {name}", "send {name} {sum} from my {account}",
                 "move {sum} over to {name}"),
    "card": ("my {account} card does not work", "order a new card for the {account}",
             "block the card of my {account}"),
    "loan": ("ask for a loan of {sum}", "what interest does a loan of {sum} have",
             "how long may i repay {sum}"),
    "hours": ("when does the branch in {city} open", "is the {city} branch open on {day}",
              "opening hours of the office in {city}"),
    "rate": ("what is the exchange rate in {city}", "change {sum} into local money in {city}",
             "how many dollars are {sum}"),
    "fees": ("why was i charged {sum}", "explain the fee of {sum} on my {account}",
             "take back the charge of {sum}"),
    "statement": ("send the statement of {day}", "print what happened on my {account}",
                  "i need a statement of the {account}"),
    "address": ("i moved to {city}", "change my address to one in {city}",
                "my letters go to {city} now"),
    "appointment": ("book a meeting with {name} on {day}", "can i see {name} on {day}",
                    "move my appointment to {day}"),
    "limit": ("raise the limit of my {account} to {sum}", "what may i spend with the {account}",
              "set a daily limit of {sum}"),
    "saving": ("put {sum} aside every {day}", "open a savings plan with {sum}",
               "save {sum} on the {account}"),
    "pet": ("insure my dog against accidents", "does the policy cover a cat at the vet",
            "my puppy needs health insurance"),
    "crypto": ("buy bitcoin with my wallet", "why is my ethereum stuck on the blockchain",
               "which coins can i trade here"),
    "travel": ("book a flight and a hotel", "cancel the cruise that i booked",
               "is my luggage insured on the plane"),
}  # fmt: skip
_SLOTS = {
    "account": ("checking account", "savings account", "joint account", "business account"),
    "sum": ("20 euros", "50 euros", "120 euros", "300 euros", "900 euros"),
    "name": ("anna", "omar", "li", "maria", "tom"),
    "city": ("rome", "oslo", "lima", "cairo", "kyoto"),
    "day": ("monday", "tuesday", "friday", "saturday"),
}
_OPENINGS = ("", "please ", "hello, ", "hi there, ", "quick question: ")
_CLOSINGS = ("", "", " thanks", " please", " today")

NOVEL = ("pet", "crypto", "travel")
FAMILIAR = tuple(k for k in _BODIES if k not in NOVEL)


def requests(
    n: int, share: float = 0.0, seed: int | tuple[int, ...] = 0
) -> tuple[list[str], list[str]]:
    """n requests and their intents; a `share` of them, at random, has a novel intent."""
    rng = np.random.default_rng(seed)
    texts, intents = [], []
    for _ in range(n):
        known = NOVEL if rng.random() < share else FAMILIAR
        intent = known[rng.integers(len(known))]
        body = _BODIES[intent][rng.integers(3)]
        for slot, words in _SLOTS.items():
            body = body.replace("{" + slot + "}", words[rng.integers(len(words))])
        opening, closing = _OPENINGS[rng.integers(5)], _CLOSINGS[rng.integers(5)]
        texts.append(opening + body + closing)
        intents.append(intent)
    return texts, intents
