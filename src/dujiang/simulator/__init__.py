"""A faithful local Jimeng and Superbed over HTTP: for the demo, tests and benchmarks. The other side of the wire.

It shares no code with the rest of the program, its signature check included, so that each can find the other's errors.
State lives in this process: a client may be killed and started again, its jobs run on. Start with `server.py`.

    with running(SimulatorSettings(limit=2, time_scale=0.01)) as simulator:
        ...  # simulator.url, simulator.ledger()

**Markers** in a prompt say what happens to it:

| marker | effect |
|---|---|
| `[sim:CODE]` | refused at the submit; the output codes (50511 50512 50516 50517 50519) end the job instead |
| `[sim:submit:CODE]` | refused at the submit with any code of the table |
| `[sim:poll:CODE]` | a code that can end a job ends it, after its run; any other answers every poll, the job goes on |
| `[sim:… once]` | only the first time: the first submit of that prompt, the first job, or the first poll of a job |
| `[sim:… gateway]` | in the gateway's envelope, the code as `Error.Code` text |
| `[sim:lost-answer]` | a fault below (with - or _ ), once: submit faults per prompt, the others per job |
| `[sim:slow]` | runs `slow_factor` times as long |
| `[sim:run:SECONDS]` | runs exactly so long (of the vendor's seconds) |
| `[sim:empty]` | done, charged, and without an image |
| `[sim:status:WORD]` | ends with this word in `data.status`, uncharged |

**Faults**, each a probability per request of its kind, at most one per request:

| kind | faults |
|---|---|
| submit, nothing accepted | `reset_before_reading` `submit_503` `submit_504_html` |
| submit, accepted and charged | `lost_answer` (reset) `lost_answer_hang` `submit_504_accepted` `garbage_body` |
| poll | `poll_reset` `poll_503` `poll_slow` `poll_garbage` `poll_hang` |
| download | `cut_download` `download_503` `download_reset` `download_stall` (half of it, then silence) |
| upload, nothing stored | `upload_reset` `upload_503` `upload_429` `upload_504` `upload_hang` (no answer, ever) |
| upload, stored | `upload_lost` (reset) `upload_garbage` |
| the first answer that says `done` of a job | `closed_door`: for `closed_door_s` new connections are refused |

A fault that spoils an answer spoils a good one; a refusal is answered in any case. A prompt can't ask for faults of
uploads, nor for a closed door. Nobody knows how the vendor refuses an account that is overdue: `refused_accounts` gives
it any words of the gateway's, and the ledger counts them under 0.

**The image host** is Superbed's token API on the same port; the token is `superbed-simulator-token` (`host_tokens`):

| request | answer |
|---|---|
| `POST /upload` | `token`, and `file` (exactly one picture) or `src` (its URL), maybe `filename` and `categories` |
| `GET` or `HEAD /item/ID.EXT` | the picture, or a redirect to `src`; 404 once deleted or older than `item_lifetime_s` |
| `POST /delete` | `token`, `ids` or `urls`; as a form or as JSON |

An upload takes `upload_s`, and an account may have `host_parallel` of them at once. Refused are what isn't a jpg, png,
bmp, webp or gif by its first bytes, what has `[sim:refuse]` in its file name or `filename`, and what is larger than
`host_max_bytes`. After five of the first two kinds without a good picture in between, the account is suspended for
good. A refusal is HTTP 200 with `err` and `msg` as `host.py` lists them. With `host_down` every upload is answered with
503, and items can still be had. A reset forgets items and suspensions.
"""

from .server import RunningSimulator, Simulator, running, serve
from .settings import FAULTS, SimulatorSettings

__all__ = ["FAULTS", "RunningSimulator", "Simulator", "SimulatorSettings", "running", "serve"]
