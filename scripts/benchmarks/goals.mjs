// What the project wants to reach, which rows of which benchmark tell whether it does, and where it does not, why: what
// the profiles show, and what was tried. docs/performance.md begins with it.
import { short, wordsOf } from './harness.mjs';

const SUBMISSION = `More than nine tenths of the process's time is the kernel's: to submit an I/O of a loop device, to wake its
worker, to switch to it and to sleep. fio pays the same for each submission, and spends more between two of them (reading
clocks), so that more completions gather for the next: what our own part saves, smaller submissions cost. Tried: registered
files and buffers, submission and wait in two calls (depth 1: twice as many I/Os), no times of access, a look for
completions before a small submission; to wait for several completions takes a timer, which costs more here than it saves.`;
const PATH = `Some 2,000 instructions, at five a cycle, spread over recording, doubt, association, look-up and ledger: no
file has more than a sixth of them. Tried: one lock for its owner without an atomic operation, sets that answer by a count,
single stores instead of cleared records, the place asked for once, -O3, link-time optimisation (no gain); reads of what the
map knows without any evidence (a third less) would leave out what rule 5 teaches by a read that a move overtakes.`;

export const GOALS = [
  [
    'contexts',
    /^own ids/,
    'a context, own ids: bind + find + release, beside packaged tables and a freelist',
    `Where a context is handed to another thread, its line goes from core to core and back, for us and for libcuckoo alike. Tried:
slots of a thread side by side, what others give back taken all at once, ids found without a hash.`,
  ],
  [
    'contexts',
    /^any keys, .*in flight, (one|two)/,
    'the same, any 64-bit keys',
    `With 65,536 random keys in flight each cycle waits for a cache line of the second level, as absl's does, which takes 24 ns
without its lock; beside libcuckoo on two threads both move lines between the cores. Tried: buckets of one line, a scalar
first look, one writer without atomic operations, other hashes and sizes.`,
  ],
  ['contexts', /^any keys, .*worst pattern/, 'the same, the worst pattern of keys to the best'],
  ['contexts', /^dispatch/, 'dispatch: what run-time detach adds to an interposed call'],
  ['native', /^64 MiB/, 'added by interception, 64 MiB disk, null device', PATH],
  [
    'native',
    /^1 TiB/,
    'added by interception, 1 TiB disk at random',
    `Each write misses the caches in both directions of the map and for the place before, and one write is not enough work to
hide that behind. Tried: fetching ahead in three steps, four requests apart; large pages for the map.`,
  ],
  ['native', /^null devices.*elapsed/, 'null device, one I/O thread: I/Os a second, without and with probe'],
  [
    'native',
    /^null devices.*threads/,
    'null device, two I/O threads to one',
    `Without a probe there is nothing in common. With one the threads meet at the map's one lock, and each time the lock changes
hands, so do the lines behind it, at 280 ns each. Tried: a lock that costs its owner nothing (it helps one thread), and
spinning before sleeping (worse); a map for each I/O thread's volumes would have to come.`,
  ],
  ['device', /against fio, IOPS/, 'loop device, beside fio, each from rest: IOPS', SUBMISSION],
  ['device', /against fio, CPU of the process/, 'loop device, beside fio: CPU of the process', SUBMISSION],
  [
    'device',
    /probe, IOPS/,
    'loop device, with probe and events taken, to without: IOPS',
    `The I/O thread has 0.15 µs more to do for each I/O, the reader of the events 0.1 on the same two processors, on which the
loop device's worker needs 1.9. Tried: events gathered for a millisecond instead of a wake-up for each, copied in one
piece, and all that made the path shorter (above).`,
  ],
  [
    'nbd',
    /./,
    'NBD, beside the best of nbdkit, qemu-nbd and qemu-storage-daemon',
    `85 % of the server's time is the kernel's: data copied between socket and file, and the memory of both, as with every
server; 13 % is ours, the probe included. Tried: all that arrived taken by one receive, the replies of a pass in one
send, long payloads received where they go, the file's own calls where they do not wait.`,
  ],
  [
    'kernel',
    /./,
    'the kernel observed, through ext4: IOPS to without',
    `Two runs of a BPF program for each I/O of each device, 30 ns each, and the map asked and told for each request.`,
  ],
  [
    'js',
    /^completion events/,
    'completion events in JavaScript',
    `Of 50 ns, some 10 are the copy out of the ring, which has left the caches, and the rest V8's for 15 fields, all of it inlined.
Tried: names kept from event to event, getters small enough to be inlined, the copy in one piece.`,
  ],
  ['js', /^reads by promise/, 'disk.read by promises at depth 32, beside fs.promises with O_DIRECT'],
  ['map', /^memory/, 'the map: memory'],
  [
    'map',
    /update|locate|owners/,
    'the map: updates and look-ups, both directions, by its batches of 32',
    `A place of several owners stands in several layers, and while there are such places each answer looks into two: twice the
memory that is waited for. Tried: all layers fetched at once for a batch, empty ones left out.`,
  ],
  [
    'js',
    /^start/,
    'from openHost to the first I/O',
    `Half of it is the 32 MiB of buffers, which are made present to be registered: 2 ms in large pages, but many times as long
where a hypervisor has to give the memory first. Tried: large pages, nothing else touched before its first use.`,
  ],
];

/** A row of a benchmark: what its goal is, what was found, and how far beyond the goal that is. */
function judged(group, row) {
  const { name, goal } = row;
  const ratio = 'ratio' in goal;
  return {
    where: `${group.name}: ${name}`,
    goal: ratio ? wordsOf(goal) : `${wordsOf(goal)} ${group.unit}`,
    found: ratio ? `×${goal.found.toFixed(2)}` : short(goal.found),
    beyond: (goal.ratio ?? goal.value) === 'least' ? goal.is / goal.found : goal.found / goal.is,
    met: goal.met,
  };
}

/** The table, in Markdown, of the benchmarks' results by their names. */
export function goalsTable(results) {
  let out = '| what | command | goals met | the farthest from its goal | |\n| --- | --- | ---: | --- | --- |\n';
  const reasons = [];
  for (const [bench, groups, what, why] of GOALS) {
    const rows = (results[bench]?.groups ?? [])
      .filter(({ name }) => groups.test(name))
      .flatMap((group) => group.rows.filter(({ goal }) => goal !== undefined).map((row) => judged(group, row)));
    if (rows.length === 0) continue;
    const met = rows.filter((row) => row.met).length;
    const worst = rows.reduce((a, b) => (b.beyond > a.beyond ? b : a));
    if (met < rows.length && why && !reasons.includes(why)) reasons.push(why);
    const verdict = met === rows.length ? 'met' : `**missed**${why ? ` (${reasons.indexOf(why) + 1})` : ''}`;
    out += `| ${what} | \`npm run bench:${bench}\` | ${met} of ${rows.length} `;
    out += `| ${worst.where}: ${worst.found}, goal ${worst.goal} | ${verdict} |\n`;
  }
  for (const [i, why] of reasons.entries()) out += `\n${i + 1}. ${why.replace(/\s+/g, ' ')}\n`;
  return out;
}
