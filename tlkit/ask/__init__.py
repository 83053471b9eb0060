"""Ask: questions to a folder of photos that its features answer in seconds.

A file for each question: a function of a folder, or of a head and a folder, that gives a frozen
record, and what of it is kept in a new folder: a table as JSON, a picture or a page. The command of
the same name (cli/) prints the record. study.py is what the questions about backbones share.
Not here: fitting a head that is kept (tlkit/fitting.py), predictions (predict/).
"""
