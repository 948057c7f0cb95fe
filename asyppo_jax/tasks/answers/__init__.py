"""A small language of answers, and the rules by which an answer is right (docs/answers.md).

A completion goes through these files:

    extract    where the final answer is
    spelling   fonts, spaces and Unicode without a meaning
    scanner    tokens: numbers, letters, words, commands
    reading    values: numbers with units, lists, intervals, equations (parts, grammar)
    compare    the rule of the reference's type (quantities, real_sets, arithmetic, numeric)
    judge      the verdict and its reason

The words of the language are tables: `words`, `units`, `spelling.SYNONYMS`. To accept one more
spelling or unit, add it to its table, and a line to `experiments/graders/answers.jsonl`.
"""
