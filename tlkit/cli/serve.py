"""`tlkit serve`: a head behind HTTP, with a page."""

from __future__ import annotations

from importlib.util import find_spec

import click

from tlkit.cli.flags import flags_for
from tlkit.cli.predict import WithTta
from tlkit.options import PredictOptions, ServeOptions

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@click.command("serve", cls=WithTta)
@click.argument("head", required=False, type=click.Path())
@click.option(
    "--weights", metavar="FILE", default="", help="The weight file of heads fitted on one."
)
@click.option(
    "--token",
    metavar="TEXT",
    default="",
    envvar="TLKIT_TOKEN",
    help="What one who asks must send; better in TLKIT_TOKEN, where no list of processes shows it.",
)
@flags_for(ServeOptions, into="serving")
@flags_for(PredictOptions, into="options")
def command(
    head: str | None, weights: str, token: str, serving: ServeOptions, options: PredictOptions
) -> None:
    """Answer for HEAD (a head file or run folder; the newest run's) over HTTP, and on a page.

    It listens on this machine alone unless --host says otherwise, and then wants a token. Images go
    through the network together, whoever sends them. --tta is for requests that name no policy.
    Needs the extra tlkit[serve].

    \b
    tlkit serve
    tlkit serve runs/cats_dogs-efficientnet_lite0 --tta --reject-below 0.9
    curl -F images=@cat.jpg http://127.0.0.1:8000/api/predict
    """
    _must_be_installed()
    from tlkit.cli import show
    from tlkit.cli.predict import asked
    from tlkit.serve.app import service
    from tlkit.serve.guard import check_token
    from tlkit.serve.listen import address_of, bound, listen

    check_token(serving.host, token)
    with bound(serving) as place:
        with show.meter() as tell:
            named = () if head is None else (head,)
            classifier, options = asked(named, weights, options, tell)
        served = service(classifier, options, serving, token)
        click.echo(f"tlkit serves {served.about().head} at {address_of(place)}  (Ctrl-C ends it)")
        waited = listen(served, place)
    said = "every request was answered" if waited else "requests under way were given up"
    click.echo(f"{said}; ended", err=True)


def _must_be_installed() -> None:
    from tlkit.errors import OptionError

    missing = [one for one in NEEDED if find_spec(one) is None]
    if missing:
        raise OptionError(
            "tlkit serve needs packages that are not installed",
            found=f"no {', '.join(missing)}",
            expected="the extra tlkit[serve]",
            do="pip install 'tlkit[serve]'",
        )
