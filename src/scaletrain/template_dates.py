"""The one date that chat templates write, in training and in serving.

Some templates write today's date. Every day's tokens would then be others: data could not be made twice, and a model
would be asked under a date that it was not trained with. The date is the one that Llama 3's template has for itself.
"""

from datetime import date
from typing import Any

_DATE = date(2024, 7, 26)
_CODES = ("-d", "-m", *"aAbBdmyYjFxcHIMSp")


def with_fixed_date(chat_template: str) -> dict[str, Any]:
    """What `apply_chat_template` is to be given, so that the template writes that date.

    transformers passes no function on to a template, so one of the template's own hides its clock.
    """
    fixed = {"chat_template": chat_template, "date_string": "26 Jul 2024"}
    if "strftime_now" in chat_template:
        written = "".join(f".replace('%{code}', '{_DATE.strftime('%' + code)}')" for code in _CODES)
        clock = f"{{% macro strftime_now(format) %}}{{{{ format{written} }}}}{{% endmacro +%}}"
        fixed["chat_template"] = clock + chat_template
    return fixed
