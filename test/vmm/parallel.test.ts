// What the threads of a machine do to each other, with real threads: no request is lost, no answer goes to another question, order is kept.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MailboxReceiver } from "../../src/host/mailbox.ts";
import { GLOBAL, REQUEST, RUN_STATE, VCPU, WRITES_MAX } from "../../src/vmm/parallel/control-area.ts";
import { ExitReceiver } from "../../src/vmm/parallel/exit-channel.ts";
import { HaltPoll } from "../../src/vmm/parallel/halt-poll.ts";
import { setKnown, setUsual } from "../../src/vmm/parallel/known-ports.ts";
import { PostedWrites, postWrite } from "../../src/vmm/parallel/posted-writes.ts";
import { RangeQueue } from "../../src/vmm/parallel/range-queue.ts";
import {
  answerCall,
  callDone,
  callResult,
  decodeValue,
  encodeValue,
  startCall,
} from "../../src/vmm/parallel/vcpu-call.ts";
import { allDeaf, VcpuLink } from "../../src/vmm/parallel/vcpu-link.ts";
import { interleave, makeChannel, Shared } from "./shared-area.ts";

const limit = { timeout: 120_000 };

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

for (const deaf of [0, 1]) {
  test(`no wake-up is lost of a vCPU that sleeps (${deaf ? "deaf" : "not deaf"})`, limit, async () => {
    const shared = new Shared();
    const [link] = shared.links;
    const times = 20_000;
    const result = shared.start("sleep", times, deaf);
    for (let n = 0; n < times; n++) {
      link.post(REQUEST.NMI);
      for (let spins = 0; link.requested; spins++) if (spins > 1000) await turn();
    }
    assert.equal(await result, times);
  });
}

test("a vCPU that runs is kicked once for what it has not taken; one that is parked is not woken by interrupts", () => {
  const shared = new Shared();
  const [link] = shared.links;
  link.enter(RUN_STATE.RUNNING);
  link.post(REQUEST.NMI);
  link.post(REQUEST.NMI);
  assert.equal(shared.kicks, 1);
  link.post(REQUEST.INTERRUPTS);
  assert.equal(shared.kicks, 2);
  assert.equal(link.takeRequests(), REQUEST.NMI | REQUEST.INTERRUPTS);
  link.enter(RUN_STATE.PARKED);
  link.post(REQUEST.NMI);
  assert.equal(shared.kicks, 2);
});

test("all vCPUs are deaf only where nothing is on its way to one, and one without a thread waits for start-up alone", () => {
  const { area, links } = new Shared(3);
  links[0].enter(RUN_STATE.DEAF);
  links[1].enter(RUN_STATE.DEAF);
  assert.ok(allDeaf(area, links));
  links[2].post(REQUEST.PINS);
  assert.ok(allDeaf(area, links));
  links[2].post(REQUEST.INIT);
  assert.ok(!allDeaf(area, links));
  links[2].takeRequests();
  links[1].post(REQUEST.NMI);
  assert.ok(!allDeaf(area, links));
  links[1].takeRequests();
  links[1].enter(RUN_STATE.RUNNING);
  assert.ok(!allDeaf(area, links));
});

test("all vCPUs are not deaf where one wakes another and falls asleep while they are looked at", (t) => {
  let at = 0;
  for (let more = true; more; at++) {
    const { area, links } = new Shared(2);
    const [sleeper, waker] = links;
    sleeper.enter(RUN_STATE.DEAF);
    waker.enter(RUN_STATE.RUNNING);
    let deaf = true;
    more = interleave(
      t,
      at,
      () => {
        deaf = allDeaf(area, links);
      },
      () => {
        sleeper.post(REQUEST.NMI);
        sleeper.sleep(1, true);
        sleeper.takeRequests();
        sleeper.enter(RUN_STATE.RUNNING);
        waker.enter(RUN_STATE.DEAF);
      },
    );
    assert.ok(!deaf, `before access ${at}`);
  }
  assert.ok(at > 3);
});

test("accesses are answered one by one, and what was posted before is done before", limit, async () => {
  const shared = new Shared();
  const receiver = new ExitReceiver(shared.links[0]);
  const writes = new PostedWrites(shared.links);
  const mailbox = new MailboxReceiver(shared.mailbox);
  setUsual(shared.area, 0, true);
  const times = 3000;
  let done: number | undefined;
  void shared.start("access", times).then((wrong) => {
    done = wrong;
  });
  const memory = new Map<number, number>();
  let port = 0;
  let transmitted = 0;
  let posted = 0;
  let ends = 0;
  const server = {
    io: {
      readPort: (_at: number, size: number) => (size === 1 ? port & 0xff : port),
      writePort: (at: number, _size: number, value: number) => {
        if (at === 0x80) {
          port = value;
          setKnown(shared.area, 0, value & 0xff);
        } else if (value === (transmitted & 0xff)) transmitted++;
      },
      readMmio: (gpa: number) => memory.get(gpa) ?? 0,
      writeMmio: (gpa: number, _size: number, value: number) => {
        if (gpa < 2 ** 32) posted++;
        memory.set(gpa, value);
      },
    },
    acknowledge: () => 0,
    endOfInterrupt: () => {
      ends++;
    },
    watchedServed: () => {},
    retry: () => {},
  };
  while (done === undefined) {
    const bell = mailbox.bell();
    const { waiting } = receiver;
    const written = writes.take(server.io);
    const news = receiver.takeNews(server) || written;
    if (waiting) receiver.serve(server);
    if (!waiting && !news) {
      await turn();
      mailbox.wait(bell, 1);
    }
  }
  assert.equal(done, 0);
  assert.equal(transmitted, times, "bytes to the transmitter came in order, none twice");
  assert.equal(posted, (times / 100) * 4950);
  assert.ok(ends > 0);
});

test("posted writes wake the devices' thread together, or where the run ends; those that something comes of and waits at once", () => {
  const { area } = new Shared();
  let rings = 0;
  const bell = { ring: () => void rings++ };
  const channel = makeChannel(new VcpuLink(area, 0, () => {}, bell), bell, {
    ranges: [
      { base: 0xc000_0000, length: 0x1000, wakes: "now" },
      { base: 0xfec0_0000, length: 4, wakes: "later" },
    ],
    ports: [
      { port: 0x3f8, size: 1, wakes: "later", status: { port: 0x3fd, value: 0x60, flag: 3 } },
      { port: 0x3f9, size: 1, wakes: (value) => (value === 0 ? "later" : "now") },
    ],
  });
  setUsual(area, 3, true);
  let time = 5e6;
  const rungBy = (what: () => void): number => {
    const before = rings;
    what();
    return rings - before;
  };
  const runEnds = (ns: number) => (): void => {
    time += ns;
    channel.flushIfDue(() => time);
  };
  const write = (times: number) => (): void => {
    for (let n = 0; n < times; n++) channel.writePort(0x3f8, 1, n);
  };
  assert.equal(rungBy(write(254)), 0);
  assert.equal(
    rungBy(() => channel.writeMmio(0xfec0_0000, 4, 0x10)),
    0,
  );
  assert.equal(rungBy(write(1)), 1, "256 of them");
  assert.equal(rungBy(runEnds(5e6)), 0);
  assert.equal(rungBy(write(1)), 0);
  assert.equal(rungBy(runEnds(100_000)), 0, "the first run's end that finds it");
  assert.equal(rungBy(runEnds(999_999)), 0);
  assert.equal(rungBy(runEnds(1)), 1);
  assert.equal(rungBy(runEnds(5e6)), 0);
  assert.equal(rungBy(write(1)), 0);
  assert.equal(
    rungBy(() => channel.flush()),
    1,
  );
  assert.equal(
    rungBy(() => channel.flush()),
    0,
  );
  setUsual(area, 3, false);
  assert.equal(rungBy(write(1)), 0);
  assert.equal(rungBy(runEnds(0)), 1, "something may come of it");
  setUsual(area, 3, true);
  write(1)();
  assert.equal(rungBy(runEnds(0)), 0);
  assert.equal(
    rungBy(() => channel.writePort(0x3f9, 1, 0)),
    0,
  );
  assert.equal(
    rungBy(() => channel.writePort(0x3f9, 1, 2)),
    1,
  );
  assert.equal(
    rungBy(() => channel.writeMmio(0xc000_0000, 4, 1)),
    1,
  );
  write(1)();
  assert.equal(
    rungBy(() => channel.endOfInterrupt(0x41)),
    1,
  );
  assert.equal(
    rungBy(() => channel.flush()),
    0,
  );
  assert.equal(channel.statistics.exits, 0);
});

test("posted writes of several vCPUs are done in the order in which they were posted, however the rings are looked at", (t) => {
  let at = 0;
  for (let more = true; more; at++) {
    const { links } = new Shared(3);
    const writes = new PostedWrites(links);
    const done: number[] = [];
    const io = {
      readPort: () => 0,
      writePort: (port: number, size: number, value: number) => done.push(port, size, value),
      readMmio: () => 0,
      writeMmio: (gpa: number, size: number, value: number) => done.push(gpa, size, value),
    };
    postWrite(links[2], true, 0xffff, 4, 0);
    postWrite(links[0], false, 2 ** 52 - 4, 4, 1);
    more = interleave(
      t,
      at,
      () => writes.take(io),
      () => {
        postWrite(links[0], true, 0x80, 1, 2);
        postWrite(links[1], true, 0x80, 2, 3);
        postWrite(links[1], false, 0xc000_0000, 1, 4);
        postWrite(links[2], true, 0x80, 1, 0xffff_ffff);
      },
    );
    while (writes.take(io));
    const late = [0x80, 1, 2, 0x80, 2, 3, 0xc000_0000, 1, 4, 0x80, 1, 0xffff_ffff];
    assert.deepEqual(done, [0xffff, 4, 0, 2 ** 52 - 4, 4, 1, ...(more ? late : [])], `at access ${at}`);
    assert.ok(!writes.take(io));
  }
  assert.ok(at > 20);
});

test("writes that are posted while others are done are left for the next time: a guest can post without end", () => {
  const { links } = new Shared(2);
  const writes = new PostedWrites(links);
  let done = 0;
  const io = {
    readPort: () => 0,
    writePort: () => {
      done++;
      postWrite(links[done & 1], true, 0x80, 1, 0);
    },
    readMmio: () => 0,
    writeMmio: () => {},
  };
  for (let n = 0; n < 3; n++) postWrite(links[0], true, 0x80, 1, 0);
  assert.ok(writes.take(io));
  assert.equal(done, 3);
  assert.ok(writes.take(io));
  assert.equal(done, 6);
});

test("a ring of posted writes that is full is waited for, and starts anew when it was emptied; tickets go round", () => {
  const { area, links } = new Shared(2);
  const writes = new PostedWrites(links);
  Atomics.store(area.words, GLOBAL.WRITES_TICKET, 0x7fff_fff0);
  let next = 0;
  const io = {
    readPort: () => 0,
    writePort: (_port: number, _size: number, value: number) => assert.equal(value, next++),
    readMmio: () => 0,
    writeMmio: () => {},
  };
  let posted = 0;
  for (let round = 0; round < 5; round++) {
    for (let n = 0; n < 2 * WRITES_MAX; n++) assert.ok(postWrite(links[(n + 1) & 1], true, 0x80, 4, posted++));
    for (const link of links) assert.ok(!postWrite(link, true, 0x80, 4, 0));
    assert.ok(writes.take(io));
    assert.equal(next, posted);
  }
});

test("ranges of several threads arrive, or all of memory is named instead", limit, async () => {
  const shared = new Shared();
  const queue = new RangeQueue(shared.links[0], "written");
  const times = 100_000;
  const seeds = [1, 2, 3];
  let running = seeds.length;
  for (const seed of seeds) void shared.start("add-ranges", times, seed).then(() => running--);
  const next = new Map(seeds.map((seed) => [seed, 0]));
  let overflows = 0;
  while (running > 0 || queue.pending) {
    queue.take(
      (start, length) => {
        assert.equal(length, 16);
        const seed = Math.floor(start / 0x1000000);
        const n = (start % 0x1000000) / 16;
        assert.ok(n >= (next.get(seed) ?? -1), "in the order of their thread");
        if (overflows === 0) assert.equal(n, next.get(seed), "none is left out");
        next.set(seed, n + 1);
      },
      () => overflows++,
    );
    await turn();
  }
  if (overflows === 0) for (const seed of seeds) assert.equal(next.get(seed), times);
});

test("a range that did not fit counts as taken only when all of memory was", () => {
  const queue = new RangeQueue(new Shared().links[0], "protect");
  const numbers = Array.from({ length: 200 }, (_, n) => queue.add(n * 4096, 4096));
  assert.ok(!queue.taken(numbers[199]));
  let all = 0;
  queue.take(
    () => assert.fail("single ranges are of no use any more"),
    () => {
      all++;
      assert.ok(!queue.taken(numbers[199]));
    },
  );
  assert.equal(all, 1);
  assert.ok(numbers.every((number) => queue.taken(number)));
  assert.ok(!queue.pending);
});

test("threads read the same time: one that is told of a time never reads an earlier one", limit, async () => {
  const shared = new Shared();
  const times = 5000;
  const result = shared.start("follow-time", times);
  const words = new Int32Array(shared.mailbox);
  const told = new Float64Array(shared.mailbox, 64, 1);
  let wrong = 0;
  for (let n = 0; n < times; n++) {
    told[0] = performance.now();
    Atomics.store(words, 0, 2 * n + 1);
    while (Atomics.load(words, 0) !== 2 * n + 2) if (n === 0) await turn();
    if (performance.now() < told[0]) wrong++;
  }
  assert.equal(wrong, 0);
  assert.equal(await result, 0);
});

test("a vCPU whose halts are short looks out for longer, up to the most that it may", () => {
  const poll = new HaltPoll();
  for (let n = 0; n < 5; n++) poll.lasted(poll.lookout + 1);
  assert.equal(poll.lookout, 100_000);
  poll.lasted(100_001);
  assert.equal(poll.lookout, 0);
  const never = new HaltPoll(0);
  for (const ns of [1, 50_000, 100_001, 1]) {
    never.lasted(ns);
    assert.equal(never.lookout, 0);
  }
});

test("values cross threads as they are", () => {
  const value = {
    number: 1.5,
    never: Number.POSITIVE_INFINITY,
    big: 0xffff_ffff_ffff_ffffn,
    bytes: Uint8Array.of(1, 2, 255),
    words: Uint32Array.of(0xffffffff),
    list: [{ text: "é\u0000", none: null }],
  };
  assert.deepEqual(decodeValue(encodeValue(value)), value);
});

test("a call is answered, and a failure told", () => {
  const [link] = new Shared().links;
  startCall(link, 3, { gpa: 12n });
  assert.ok(!callDone(link));
  assert.ok(link.load(VCPU.REQUESTS) & REQUEST.ORDER);
  assert.ok(answerCall(link, (call, argument) => [call, argument]));
  assert.ok(callDone(link));
  assert.deepEqual(callResult(link), [3, { gpa: 12n }]);
  assert.ok(!answerCall(link, () => assert.fail("there is no second call")));
  startCall(link, 1);
  answerCall(link, () => {
    throw new Error("no such thing");
  });
  assert.throws(() => callResult(link), /no such thing/);
});
