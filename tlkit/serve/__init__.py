"""Serve: a head behind HTTP, for programs and, with a page, for people.

app.py      what can be asked, and the answers
desk.py     one thread that owns the heads; images of many requests go through the network together
guard.py    who may ask, and how much
problems.py errors as HTTP has them
metrics.py  what is counted
listen.py   the server, and its end
static/     the page
"""
