"""Scale: work on lists of images that are longer than one process, or one machine, should hold.

places.py    files on disks and in object stores, by path or URI
listing.py   what files, folders, globs and manifests mean, as one list
job.py       the list cut into shards, one Parquet part of each, what is done already
pool.py      who does the shards: this process, or the actors of Ray Data
scoring.py   the work of `tlkit predict --ray`
features.py  the work of `tlkit features`

A part's name is a function of its shard alone, and it is written whole or not at all. So whatever
is begun twice, after the loss of a machine or a stop, doubles nothing and loses nothing.
"""
