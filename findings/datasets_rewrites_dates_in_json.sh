#!/usr/bin/env bash
# datasets 5.2.0, pyarrow 26.0.1 (Python 3.11).
#
# Expected: a string in a JSON file is read as that string, above all where features=Features({"answer":
#   Value("string")}) asks for strings.
# Seen: if all values of a field in a file are ISO dates, they are read as points in time. "2024-05-17" becomes
#   datetime(2024, 5, 17), and with those features it becomes the string "2024-05-17 00:00:00".
#   "2024-05-17T10:00:00+02:00" becomes 08:00 without a zone. In a data set of two files, one with words and a date
#   and one with dates only, the same kind of date has two forms. Dataset.from_list keeps all strings as they are.
#   There is no error and no warning.
# Who meets it: questions whose answer is a date. The reference that the reward function compares with is not the
#   one in the file, so the answer 2024-05-17 is wrong.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile datasets==5.2.0 pyarrow==26.0.1 || exit 2
cd "$dir" || exit 2
HF_HOME="$dir/cache" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 venv/bin/python - <<'PYTHON'
import datetime
import json
import logging
import warnings

from datasets import Dataset, Features, Value, load_dataset

said = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("datasets").addHandler(handler)
warnings.showwarning = lambda message, *_: said.append(str(message))


def answers(*files, **kwargs):
    names = []
    for number, values in enumerate(files):
        names.append(f"{abs(hash(files))}-{number}.jsonl")
        with open(names[-1], "w") as file:
            file.writelines(json.dumps({"answer": value}) + "\n" for value in values)
    return load_dataset("json", data_files=names, split="train", **kwargs)["answer"][:]


dates = ("2024-05-17", "2024-05-18")
plain = answers(dates)
as_strings = answers(dates, features=Features({"answer": Value("string")}))
two_files = answers(("Friday", "2024-05-16"), dates)
zone = answers(("2024-05-17T10:00:00+02:00",))
from_list = Dataset.from_list([{"answer": date} for date in dates])["answer"][:]
print(f"{dates} in a file: {plain}")
print(f"with features of strings: {as_strings}")
print(f"behind a file with Friday and 2024-05-16: {two_files}")
print(f"2024-05-17T10:00:00+02:00: {zone}")
print(f"by from_list: {from_list}; warnings: {said}")
rewritten = ["2024-05-17 00:00:00", "2024-05-18 00:00:00"]
holds = plain == [datetime.datetime(2024, 5, 17), datetime.datetime(2024, 5, 18)]
holds = holds and as_strings == rewritten and two_files == ["Friday", "2024-05-16", *rewritten]
holds = holds and zone == [datetime.datetime(2024, 5, 17, 8)] and from_list == list(dates)
holds = holds and not said

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
