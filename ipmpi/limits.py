"""Every bound and default time of ipmpi, each with its reason.

Sizes are bytes, times are seconds.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- Frames -------------------------------------------------------------------------------------------
CHUNK: Final = 256 * KIB
"""Bulk data is cut into pieces of this size: at 1 GB/s a control message waits 0.25 ms for one of them."""

INLINE_BODY: Final = 128 * KIB
"""A body up to this size travels inside its message; a larger one becomes a stream of chunks under credit."""

MESSAGE: Final = 2 * MIB
"""The largest message, header and inline body together: a header lists 4,096 engine ids and a source text."""

STREAM_WINDOW: Final = 8 * MIB
"""Credit that a receiver gives one stream. 8 MiB fill a 10 Gb/s path of 6 ms; a relay holds no more than this."""

FILE_BODY: Final = MIB
"""A body from this size goes in a file in memory, to a process of the same machine. To make, send, map and close a
file costs about as much as to send some hundred KiB."""

FILES_UNDER_WAY: Final = 256
"""Pieces of large answers that an agent keeps open as files; it maps others. Each is a descriptor, here and in the
controller, and the client's bytes on their way are limited by STREAM_WINDOW anyway."""

USED_MAPS: Final = 512 * MIB
"""Memory of large results that a client fills again when their arrays are gone: the system clears new pages."""

USED_MAPS_KEPT: Final = 5.0
"""Seconds after the last large result in which it keeps that memory."""

FILLERS: Final = 2
"""Threads in which a client copies bodies into files. Memory is busy with two."""

COPY_THREADS: Final = 4
COPY_SHARE: Final = 16 * MIB
"""Threads that copy one large array, and bytes that each has at least: it needs two milliseconds for them."""

POOL_SHARE: Final = 1 / 16
POOL_BYTES: Final = 1024 * MIB
"""Files in memory that a client keeps to write them again, a controller, a node agent, and all ranks of a node
together: so much of the memory that is left each, and at most POOL_BYTES. For two arrays of 100 MB in turns, 3 GB
have to be left."""

POOL_FILES: Final = 64
"""How many of them: each is a descriptor, of the 1,024 that a process has by default."""

POOL_KEEPS: Final = 5.0
"""Seconds for which such a file is kept after its last use. Who transfers more rarely has time to spare."""

SEGMENTS: Final = 65_536
"""Buffers in one body: a dictionary of that many arrays is past what one command should carry."""

ACK_FRAMES: Final = 64
ACK_BYTES: Final = 1 * MIB
"""A receiver acknowledges after this many frames or bytes, so an outbox stays below a few of these."""

ACK_DELAY: Final = 0.2
"""And after this time at the latest: its sender keeps what is not acknowledged, as views of the user's arrays."""

UNACKNOWLEDGED: Final = 32 * MIB
"""Bytes that may be sent without being acknowledged: four full streams. Who lets this pile up gets no more."""

LANE_BODY: Final = 4 * MIB
"""Bodies from this size go by a bulk lane, if their ends are on two machines: below, the controller's share of the
work is as small as that of making a lane."""

LANE_UNACKNOWLEDGED: Final = 16 * MIB
"""What UNACKNOWLEDGED is on a lane. If a lane is cut, about as much goes through the controller's memory."""

LANE_BODIES: Final = 256
"""Bodies that are under way on one lane, in one direction. The lane of a sender that begins more is ended."""

LANE_BODIES_SENT: Final = LANE_BODIES // 2
"""Of those that a sender begins at a time. Others, as of a pull from many ranks, go by the session, or from where
they are by the lane when there is room."""

LANE_REST: Final = LANE_UNACKNOWLEDGED + LANE_BODIES_SENT * STREAM_WINDOW + 32 * MIB
"""What one end can have left of a lane that is cut: what is not acknowledged, and of each body what there is
credit for; with the frames around it. Who sends more through the controller is not honest."""

LANES: Final = 64
"""Bulk lanes of a controller, those that are being made included; each needs six descriptors, four of them for two
pipes."""

LANE_PIPE: Final = 256 * KIB
"""What such a pipe holds. All together stay below the 64 MiB that Linux gives a user (pipe-user-pages-soft): above
that, new pipes have one page, also those of other programs."""

LANES_OF_CLIENT: Final = 8
"""Lanes of one client, each to another engine set."""

LANE_MADE: Final = 10.0
"""Seconds in which a lane has to be made; tickets are good for that long."""

LANE_AGAIN: Final = 10.0
"""Seconds until a lane is tried again that could not be made, or was cut; twice as many each time."""

LANE_AGAIN_LONGEST: Final = 600.0
"""The longest of these pauses."""

READ_PAUSE: Final = 4 * MIB
"""Nothing more is read from a peer of the controller for which so much waits, until it has read some of that."""

CIPHERTEXT_BACKLOG: Final = 512 * KIB
"""Bytes handed to TLS and not yet taken by the kernel. What waits here cannot be overtaken, so keep it short."""

CLIENT_INLINE_BACKLOG: Final = 32 * MIB
"""Inline bodies of one client that wait for an answer. Above it the client sends bodies as streams."""

CLIENT_BACKLOG: Final = 512 * MIB
"""Results that wait for a client that does not read them. A client that lets more pile up is disconnected."""

CLIENT_SESSIONS: Final = 4096
OBSERVER_SESSIONS: Final = 64
"""Sessions of a role that may work, and of one that may only look (monitors): each takes memory here."""

OBSERVER_BACKLOG: Final = 8 * MIB
OBSERVER_UNACKNOWLEDGED: Final = 4 * MIB
"""What CLIENT_BACKLOG and UNACKNOWLEDGED are for who may only look: it gets short answers."""

CLIENT_COMMANDS: Final = 100_000
"""Commands of one client that wait for an answer; more raise Backpressure."""

BOOK_COMMANDS: Final = CLIENT_COMMANDS
"""Commands of which an engine set knows which ranks it has given them, for a controller that is started again."""

BOOK_ENDED: Final = 20_000
"""Those of them that have ended on all ranks, and whose clients have not said that they know."""

BOOK_BYTES: Final = 16 * MIB
"""Answers that an engine set keeps for that, until their clients have said that they have them."""

HISTORY_COMMANDS: Final = 500
"""Commands that have ended of which a controller keeps what they were, printed and answered, for other clients of
the same user: a day or two of work at a prompt. Each takes about 4 KiB, and more for what it has answered."""

HISTORY_BYTES: Final = 64 * MIB
"""What they have printed and answered, all together, those that run included."""

HISTORY_OF_ONE: Final = 16 * MIB
"""The same of one command, so that one that prints much does not push all others out."""

HISTORY_SOURCE: Final = 16 * KIB
"""Source text that is kept with a command; of a longer one only the label."""

HISTORY_PAGE: Final = 256 * KIB
"""Bytes of commands that are listed in one message."""

# --- Before authentication (reference: the project's security page) ------------------------------------
HANDSHAKE_TIMEOUT: Final = 5.0
"""For a peer that has connected to say who it is."""

AUTHENTICATION_BYTES: Final = 4 * KIB
HALF_OPEN: Final = 1024
"""Strangers at a time. A job array starts as many engines in one second; each costs some 50 KiB here."""

ANSWER_TIMEOUT: Final = 15.0
"""For the controller to answer who dials. More than HANDSHAKE_TIMEOUT, as a thousand may have come just before."""

REFUSAL_LOG_INTERVAL: Final = 60.0
"""One log line per source address and minute, so that a port scan does not fill the disk."""

# --- Links ---------------------------------------------------------------------------------------------
PING_INTERVAL: Final = 15.0
"""Some firewalls drop flows that are silent for 20 s."""

SILENCE: Final = 60.0
"""No byte for this long: the network is cut. The link is closed and dialled again."""

SILENCE_OF_USER_CODE: Final = 900.0
"""The same for a client, which has user code beside its link. A library that holds the GIL for minutes also holds
the thread that would answer; the kernel's keepalive, which needs no GIL, notices a dead machine after two. An
engine set has a process of its own for its link, and is allowed SILENCE."""

LEASE_AFTER_SILENCE: Final = 120.0
"""A peer whose network was cut may come back for this long before its work counts as lost."""

LEASE_AFTER_CLOSE: Final = 5.0
"""A peer whose connection was closed is dead, or dials again at once, if it has noticed that.

For those that lose nothing by it."""

LEASE_WITH_WORK: Final = SILENCE + 2 * PING_INTERVAL
"""For the others: who dialled may see only by its silence that a link is dead (ssh -L, address translation)."""

LEASE_LOOK: Final = 0.5
"""How often to look whether a peer on the same machine that may come back has ended."""

TLS_RECORDS: Final = 1 << 23
"""Records of one direction after which a link is replaced by a new one, with new keys. RFC 8446 (5.5) allows
2**24.5 for AES-GCM; who dials looks every few seconds, in which some 100,000 may pass."""

RECONNECT_FIRST: Final = 0.1
RECONNECT_LONGEST: Final = 15.0
RECONNECT_FACTOR: Final = 1.7

RECONNECT_SOON: Final = 10.0
RECONNECT_OFTEN: Final = 0.3
"""For so long after its link broke, a session that dials a controller directly does so this often: one that was
killed is started again within seconds, and until then its machine refuses what comes."""

CONNECT_TIMEOUT: Final = 10.0
"""For one address; several are tried one after the other."""

PORT_WAIT: Final = 5.0
"""For a port of the controller's that a connection of some program to elsewhere has at the moment."""

PROXY_TIMEOUT: Final = 30.0
"""For the answer of an HTTP proxy: it looks up the name and connects before it answers."""

PROXY_ANSWER: Final = 16 * KIB
"""The largest answer of an HTTP proxy, cookies and all; a page that explains a refusal is not read."""

ENGINE_RECONNECT: Final = 600.0
"""An engine without its controller keeps trying for this long, then ends itself: no orphans in an allocation."""

CLIENT_RECONNECT: Final = LEASE_AFTER_SILENCE
"""A client tries for as long as the controller would keep its session."""

# --- Through ssh -----------------------------------------------------------------------------------------
SSH_WINDOW: Final = 2 * MIB
"""Credit of one channel in one direction. As much as OpenSSH lets be under way; more would only wait inside it."""

SSH_CHUNK: Final = 64 * KIB
"""Channels take turns after this much, and as much of one channel waits here to be sent."""

SSH_CHANNELS: Final = 256
"""Connections through one ssh at a time; each may hold a window of memory."""

SSH_REQUEST: Final = 64 * KIB
"""The largest request: a command line."""

SSH_TEXT: Final = 8 * KIB
"""Characters of an answer that is no data: a furl, or why something cannot be done."""

SSH_BACKLOG: Final = 1 * MIB
"""Answers that wait for a laptop which sends and does not read. Above it, nothing more is read from it."""

SSH_BANNER: Final = 64 * KIB
"""What a login may print before ipmpi speaks: messages of the day, output of the shell's start-up files."""

SSH_CONNECT_TIMEOUT: Final = 30
"""For ssh to reach the machine, before anything is typed."""

SSH_LOGIN_TIMEOUT: Final = 300.0
"""For a whole login: passwords are typed, file systems are slow, `module load` is slower."""

SSH_RECONNECT_FIRST: Final = 0.5
SSH_RECONNECT_LONGEST: Final = 60.0
SSH_RECONNECT_FACTOR: Final = 3.0
"""At most four logins in the first minute: some sites take more for an intrusion, and lock the user out."""

SSH_SETTLED: Final = 60.0
"""A session that has lasted so long is not a failing one: the next login after it need not wait."""

RUN_GRACE: Final = 10.0
"""A command that ran at the far end gets SIGTERM when nobody waits for it any more, and SIGKILL after this."""

# --- Engines -------------------------------------------------------------------------------------------
MAX_ENGINES: Final = 65_536
REGISTER_PART: Final = 4096
"""Engines in one Register message: with host names of 255 bytes they fit into MESSAGE."""

FOLD_PAUSE: Final = 0.002
FOLD_DELAY: Final = 0.02
"""An agent folds equal answers of its ranks: it reports what it has when none has come for FOLD_PAUSE seconds, and
FOLD_DELAY after the first at the latest."""

ANSWER_COPIES: Final = 1 / 4
"""How much of the memory that a node has left its ranks may use for copies of large answers that are on their way,
all together."""

SENDER_SILENT: Final = 0.6
"""A client of which nothing was heard for so long after it was asked for a sign of life gives way to others that
wait for engines to which it sends something. It loses only its place in their queues, so this may be short."""

ANSWER_STUCK: Final = 5.0
"""An answer too large to be copied as a whole is given up after so many seconds in which its client has taken
nothing of it, if others wait for the engine. Networks that lose packets recover within two or three."""

SET_FORMS: Final = 120.0
"""Ranks that have not reported so long after MPI had started all of them are left out of the set."""

INTERRUPT_REACTS: Final = 3.0
"""Seconds for engines to end what was interrupted, before interrupt() says which have not."""

INTERRUPT_GRACE: Final = 3.0
"""An engine that is told to stop while user code runs is interrupted, and ended after this."""

RESTART_GRACE: Final = 0.5
"""The same for an engine that is restarted: its namespace is given up, and somebody waits for the new one."""

NODES_MEET: Final = 10.0
"""For the nodes of a set to link up, while the other ranks wait in MPI. It takes milliseconds where they can reach
each other, and longer than this only where a firewall swallows what they say."""

RESULT_TEXT: Final = 1 * MIB
"""Captured stdout, stderr or traceback of one command; the middle of a longer one is replaced by a note."""

DISPLAY: Final = 1 * MIB
"""All formats of one value or figure that is displayed. With the texts of its command it fits into MESSAGE; a
figure of 640 x 480 has some 30 KiB."""

OUTPUT_WINDOW: Final = 0.1
"""Seconds for which an agent collects what ranks print, to tell equal lines of theirs once. Each level of the tree
adds as much; people see a delay from about 0.2 s on."""

OUTPUT_LINE: Final = 16 * KIB
"""A line that is longer is passed on in pieces."""

OUTPUT_LINES: Final = 16_384
"""Lines at the beginning and at the end of a long output that are kept. An agent needs some microseconds for each,
and serves all ranks of its node: half a million empty lines of each of them would keep it from all else."""

INQUIRY: Final = 5.0
"""Seconds for node agents to answer a question about their ranks. They need milliseconds, but networks may be
slow, and reading the stacks of many ranks that keep all processors busy takes seconds."""

OUTPUT_KEPT: Final = 4 * MIB
"""What the last commands of a rank have printed, for get_result; and what the ranks of a node print otherwise."""

OUTPUT_ENTRY: Final = 100
"""What each kept line counts for beside its text: it takes as much memory."""

DISPLAYS: Final = 16 * MIB
"""Figures and other displays of one rank during one command, all together: 500 figures of 30 KiB. Its client keeps
all of them."""

OUTPUT: Final = 2 * RESULT_TEXT + DISPLAYS
"""What a controller passes on of one engine during one command; agents leave out the middle of longer output."""

WATCH_BACKLOG: Final = 256 * KIB
"""Bytes that wait on a link, above which values that are watched are left out: a plot can do without some of
them, and must not delay commands."""

WATCH_SAMPLES: Final = 1_000
"""Values of one watch that are told at a time, of those that came within :data:`WATCH_WINDOW`."""

WATCH_WINDOW: Final = 0.05
"""Seconds for which an agent collects values that are watched: nobody looks at more than 20 pictures a second."""

WATCHES: Final = 1_000
"""Watches to which the clients of a controller may subscribe."""

MONITOR_WATCHES: Final = 8
"""Watches that one monitor may have: each costs the program that is watched some time."""

MONITORS_WATCHES: Final = 32
"""Watches that all monitors of a controller may have together."""

MONITOR_WATCH_INTERVAL: Final = 0.5
"""Seconds between the beginnings of two watches of monitors, for each of which a program holds for a moment."""

RECORD_BYTES: Final = 64 * MIB
"""What a rank of a program keeps of the changes that clients have made, so that a run can be repeated. Data that
was pushed is a part of it, and the memory is the program's."""

RESTORE: Final = 8 * KIB
"""Bytes of what restores the names of engines after a loss, which the controller keeps for each of them: mostly
the name of a folder, and Linux opens none of more than 4 KiB."""

DEBUGGER_TEXT: Final = 32 * KIB
"""Characters that a debugger writes between two prompts: 400 lines of a terminal. Of a longer text the middle is
left out. Rarely more than one packet."""

DEBUGGER_LINE: Final = 16 * KIB
"""Characters of a line for a debugger: what a person types or pastes."""

DEBUG_WINDOW: Final = 256 * KIB
"""Bytes between an editor and debugpy that may be under way in one direction. Their messages have some KiB; a long
list of variables arrives in several parts."""

DEBUG_PIECE: Final = 64 * KIB
"""Bytes of them in one message, so that other messages wait for none of them for long."""

DEBUG_CHANNELS: Final = 16
"""Editors of one client that are attached to engines at a time. Their engines stand still, so people have few."""

DEBUG_ATTACHES: Final = 2.0
"""Seconds after which the client says where an engine is to which debugpy could not be attached yet. It takes half
a second, most of it to load debugpy."""

EXCEPTION: Final = 1 * MIB
"""The largest pickled exception that travels; of a larger one its name, text and traceback do."""

ENGINE_ID: Final = 2**31 - 1
"""The largest engine id. They are never given twice; at a thousand engines a second this lasts for weeks."""

DEATH_LINES: Final = 20
DEATH_LINE: Final = 400
"""Lines that a rank has printed last, which are told when it has died, and characters of each: a screenful."""

DEATH_PRINTED: Final = 6 * KIB
DEATH_STACK: Final = 6 * KIB
"""Bytes of those lines, and characters of the stack of a crash."""

DEATHS_WHOLE: Final = 16
DEATHS_WITHIN: Final = 10.0
"""So many deaths in so many seconds are told on by an agent with output and stack. A launcher may kill a thousand
ranks because of the first."""

MEMORY_LOOK: Final = 0.1
MEMORY_LOOK_LONGEST: Final = 2.0
"""Seconds after which a rank that has begun something is looked at for its memory, and the longest time between
two looks, unless memory runs out sooner. A look takes some 20 microseconds."""

SOURCE: Final = MESSAGE - INLINE_BODY - 64 * KIB
"""The longest source text of a command or task, with some room for the rest of the message that it goes in."""

NAMES: Final = MIB
"""Characters of all names of one call, of keys or properties; with a source text they have to fit into MESSAGE."""

LINE: Final = 64 * KIB
"""Characters of what is one word of a command line: the name of a machine, a furl, the name of a file."""

LOG_BYTES: Final = 64 * MIB
"""Of one log file. A process keeps the one before as well; more tells nobody more."""

LABEL: Final = 120
"""Characters of a command shown in queue_status."""

# --- The task farm ---------------------------------------------------------------------------------------
TASK_PAYLOAD: Final = 64 * KIB
"""A task whose arguments are larger when pickled, and a result that is, travels by itself, as a stream."""

TASKS_PER_MESSAGE: Final = 4096
"""Tasks in one message; with TASK_BATCH bytes of payload together it stays well below MESSAGE."""

TASK_BATCH: Final = 96 * KIB
"""Payload of one message of several tasks. It is inline, so it is below INLINE_BODY."""

FUNCTION: Final = 64 * MIB
"""The largest pickled function. It overtakes nothing, so a larger one would keep messages waiting for too long."""

TASK_RESULT_WAITS: Final = 0.005
"""Seconds that the result of a task may wait at its rank for others, to travel with them."""

TASK_BACKLOG: Final = 256 * MIB
"""Payload that a client leaves with the controller at a time; what is more waits at the client."""

TASK_BYTES: Final = 2 * TASK_BACKLOG
"""Payload that the controller holds for one client; more is refused with Backpressure."""

TASK_BACKLOG_WRITTEN: Final = 2048 * MIB
TASK_BYTES_WRITTEN: Final = 2 * TASK_BACKLOG_WRITTEN
"""The same for a controller with a journal, where they are on its disk: room for ten million tasks of 100 bytes,
and much less than most disks have."""

ARGUMENTS_IN_MEMORY: Final = 64 * MIB
"""Arguments of all clients that such a controller has in memory: some seconds of the shortest tasks, in which it
can read many times as much from its journal."""

KEEP: Final = 7 * 86_400.0
KEEP_BYTES: Final = 10 * 1024 * MIB
"""How long, and how many bytes of, named tasks and those of clients that are gone are kept in a journal after they
have ended: a week of holidays, and less than most local disks have."""

KEEP_IN_MEMORY: Final = 256 * MIB
"""Bytes of their results that a controller without a journal keeps, in its memory."""

KEPT_RESULT: Final = 256 * MIB
"""The largest result that a controller keeps. It is in memory as a whole while it is written."""

TASK_NUMBER: Final = 2**31 - 1
"""The largest ``priority`` and number of ``retries`` of a task: 32 bits, as the controller sorts by them."""

LONGEST: Final = 100 * 366 * 86_400.0
"""Seconds: the largest ``timeout`` or ``expected`` of a task. A century is for ever, and can be computed with."""

FURL_LASTS: Final = 366 * 86_400.0
"""Seconds: the longest that a furl which was given out can last, a year."""

TASK_GRACE: Final = 3.0
"""Seconds that a task has to end after it was interrupted. Then its end is told, whatever its engine does; that
one gets no other task before it comes back."""

MAX_CRASHES: Final = 3
"""A task that was running on so many engines when they were lost is given up: it is most likely the cause."""

UNSCHEDULABLE_AFTER: Final = 30.0
"""Seconds after which a task that no engine accepts, although engines are idle, ends with TaskTimeout."""

PROGRAM_SPACES: Final = 64
"""Programs (with executors, pools, joblib) whose globals an engine keeps; those that were used last stay."""

MAX_ABANDONED_COMMUNICATORS: Final = 1500
"""Communicators that ranks of one set may leave unusable or cached. MPICH has 2,048 in all."""
