// What the threads of a machine do to each other, with real threads: no request is lost, no answer goes to another question, order is kept.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MailboxReceiver } from "../../src/host/mailbox.ts";
import { REQUEST, RUN_STATE, VCPU } from "../../src/vmm/parallel/control-area.ts";
import { ExitChannel, ExitReceiver, setUsual } from "../../src/vmm/parallel/exit-channel.ts";
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
import { interleave, Shared } from "./shared-area.ts";

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
      readPort: () => port,
      writePort: (at: number, _size: number, value: number) => {
        if (at === 0x80) port = value;
        else if (value === (transmitted & 0xff)) transmitted++;
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
    const news = receiver.takeNews(server);
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

test("posted port writes wake the devices' thread together, or where the run ends; memory writes and waits at once", () => {
  const { area } = new Shared();
  let rings = 0;
  const bell = { ring: () => void rings++ };
  const channel = new ExitChannel(new VcpuLink(area, 0, () => {}, bell), bell, {
    ranges: [{ base: 0xc000_0000, length: 0x1000 }],
    ports: [{ port: 0x3f8, size: 1 }],
  });
  const write = (times: number): void => {
    for (let n = 0; n < times; n++) channel.writePort(0x3f8, 1, n);
  };
  write(15);
  assert.equal(rings, 0);
  write(1);
  assert.equal(rings, 1);
  write(1);
  channel.flush();
  assert.equal(rings, 2);
  channel.flush();
  assert.equal(rings, 2);
  write(1);
  channel.writeMmio(0xc000_0000, 4, 1);
  assert.equal(rings, 3);
  write(1);
  channel.endOfInterrupt(0x41);
  assert.equal(rings, 4);
  channel.flush();
  assert.equal(rings, 4);
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
