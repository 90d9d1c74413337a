// What the threads of a machine do to each other, with real threads: no request is lost, no answer goes to another question, order is kept.

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Worker } from "node:worker_threads";
import { MAILBOX_BYTES, MailboxBell, MailboxReceiver } from "../../src/host/mailbox.ts";
import { ManualClock, TimerQueue } from "../../src/vmm/clock.ts";
import { DeliveryMode } from "../../src/vmm/io/interrupt-message.ts";
import { InterruptRouter } from "../../src/vmm/io/interrupt-router.ts";
import { LocalApic } from "../../src/vmm/io/lapic.ts";
import { Lvt } from "../../src/vmm/io/lapic-registers.ts";
import { ControlArea, REQUEST, RUN_STATE, VCPU } from "../../src/vmm/parallel/control-area.ts";
import { ExitReceiver, setUsual } from "../../src/vmm/parallel/exit-channel.ts";
import { RangeQueue } from "../../src/vmm/parallel/range-queue.ts";
import { PostedInterrupts, RemoteApic } from "../../src/vmm/parallel/remote-apic.ts";
import {
  answerCall,
  callDone,
  callResult,
  decodeValue,
  encodeValue,
  startCall,
} from "../../src/vmm/parallel/vcpu-call.ts";
import { allDeaf, VcpuLink } from "../../src/vmm/parallel/vcpu-link.ts";
import { restoreState, saveState } from "../../src/vmm/state.ts";
import type { Role } from "./parallel-worker.ts";

const limit = { timeout: 120_000 };

class Shared {
  readonly area: ControlArea;
  readonly mailbox = new SharedArrayBuffer(MAILBOX_BYTES);
  readonly links: VcpuLink[];
  kicks = 0;

  constructor(vcpus = 1) {
    this.area = new ControlArea(vcpus);
    const bell = new MailboxBell(this.mailbox);
    this.links = Array.from({ length: vcpus }, (_, id) => new VcpuLink(this.area, id, () => this.kicks++, bell));
  }

  start(what: Role["what"], times: number, seed = 0): Promise<number> {
    const workerData: Role = { what, control: this.area.memory, mailbox: this.mailbox, times, seed };
    const worker = new Worker(new URL("./parallel-worker.ts", import.meta.url), { workerData });
    return new Promise((resolve, reject) => {
      worker.on("message", resolve);
      worker.on("error", reject);
    });
  }
}

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

class PostedMachine {
  readonly shared = new Shared();
  readonly refused: number[] = [];
  readonly events: string[] = [];
  readonly apic: LocalApic;
  readonly remote: RemoteApic;
  private readonly posted: PostedInterrupts;

  constructor() {
    const [link] = this.shared.links;
    this.posted = new PostedInterrupts(
      link,
      () => this.apic,
      (vector) => this.refused.push(vector),
    );
    this.apic = new LocalApic({
      id: 5,
      bootstrap: false,
      timers: new TimerQueue(new ManualClock()),
      bus: new InterruptRouter(),
      anomalies: { anomaly: () => {} },
      timerFrequency: 1e9,
      tscToNs: () => 0,
      events: {
        interruptPending: () => {},
        nmi: () => this.events.push("nmi"),
        init: () => this.events.push("init"),
        startup: (vector) => this.events.push(`startup ${vector}`),
      },
    });
    this.remote = new RemoteApic(link, 5);
  }

  enable(): void {
    this.apic.writeMmio(0xf0, 4, 0x1ff);
    this.posted.publishIdentity();
  }

  postLevel(): void {
    this.remote.deliver(DeliveryMode.FIXED, 0x41, true);
  }

  restored(): void {
    this.posted.restored();
  }

  take(): void {
    this.posted.take(this.shared.links[0].takeRequests());
  }
}

/** Does `between` before the `at`-th atomic access of `work`; false if it has fewer. */
function interleave(t: TestContext, at: number, work: () => void, between: () => void): boolean {
  let count = 0;
  for (const name of ["load", "store", "or", "and", "exchange", "compareExchange", "add"] as const) {
    const original = Atomics[name] as (...parameters: unknown[]) => number;
    t.mock.method(Atomics, name, (...parameters: unknown[]) => {
      if (count++ === at) between();
      return original(...parameters);
    });
  }
  work();
  t.mock.restoreAll();
  return count > at;
}

test("posted vectors reach the IRR, level-triggered ones the TMR", () => {
  const machine = new PostedMachine();
  machine.enable();
  const { remote, apic } = machine;
  for (const vector of [0x30, 0x7f, 0xff]) assert.ok(remote.deliver(DeliveryMode.FIXED, vector, false));
  assert.ok(remote.deliver(DeliveryMode.FIXED, 0x41, true));
  machine.take();
  assert.equal(apic.readMmio(0x210, 4), 1 << 16);
  assert.equal(apic.readMmio(0x220, 4), 1 << 1);
  assert.equal(apic.readMmio(0x230, 4) >>> 0, 0x80000000);
  assert.equal(apic.readMmio(0x270, 4) >>> 0, 0x80000000);
  assert.equal(apic.readMmio(0x1a0, 4), 1 << 1);
  assert.equal(apic.pendingVector(), 0xff);
});

test("a level that is posted while an edge of its vector is taken stays one, wherever the one comes between the other", (t) => {
  const cases: readonly ((machine: PostedMachine, at: number) => boolean)[] = [
    (machine, at) =>
      interleave(
        t,
        at,
        () => machine.take(),
        () => machine.postLevel(),
      ),
    (machine, at) =>
      interleave(
        t,
        at,
        () => machine.postLevel(),
        () => machine.take(),
      ),
  ];
  for (const between of cases) {
    let at = 0;
    for (let more = true; more; at++) {
      const machine = new PostedMachine();
      machine.enable();
      machine.remote.deliver(DeliveryMode.FIXED, 0x41, false);
      more = between(machine, at);
      if (!more) machine.postLevel();
      machine.take();
      assert.equal(machine.apic.readMmio(0x220, 4), 1 << 1, `IRR, ${at}`);
      assert.equal(machine.apic.readMmio(0x1a0, 4), 1 << 1, `TMR, ${at}`);
    }
    assert.ok(at > 3);
  }
});

test("a local APIC that is disabled by software takes no vector, and a level that it lost is told", () => {
  const machine = new PostedMachine();
  assert.ok(!machine.remote.deliver(DeliveryMode.FIXED, 0x30, true));
  machine.enable();
  assert.ok(machine.remote.deliver(DeliveryMode.FIXED, 0x30, true));
  machine.apic.writeMmio(0xf0, 4, 0xff);
  machine.take();
  assert.deepEqual(machine.refused, [0x30]);
});

test("INIT and start-up in order; a start-up that an INIT overtook has no effect", () => {
  const machine = new PostedMachine();
  const { remote } = machine;
  remote.deliver(DeliveryMode.INIT, 0, false);
  remote.deliver(DeliveryMode.STARTUP, 0x9a, false);
  machine.take();
  assert.deepEqual(machine.events, ["init", "startup 154"]);
  machine.events.length = 0;
  remote.deliver(DeliveryMode.STARTUP, 0x12, false);
  remote.deliver(DeliveryMode.INIT, 0, false);
  machine.take();
  assert.deepEqual(machine.events, ["init"]);
});

test("of start-ups that were not taken the first counts, after an INIT the first that follows it", () => {
  const machine = new PostedMachine();
  const { remote } = machine;
  for (const vector of [0xff, 0x12]) remote.deliver(DeliveryMode.STARTUP, vector, false);
  machine.take();
  assert.deepEqual(machine.events.splice(0), ["startup 255"]);
  remote.deliver(DeliveryMode.STARTUP, 0x21, false);
  remote.deliver(DeliveryMode.INIT, 0, false);
  for (const vector of [0x9a, 0x12]) remote.deliver(DeliveryMode.STARTUP, vector, false);
  machine.take();
  assert.deepEqual(machine.events, ["init", "startup 154"]);
});

test("an INIT drops the NMI and the interrupts that were posted before it, an NMI that was posted after it comes after it", () => {
  const machine = new PostedMachine();
  machine.enable();
  const { remote } = machine;
  // LINT1: NMI.
  machine.apic.writeMmio(0x360, 4, 0x400);
  remote.deliver(DeliveryMode.NMI, 0, false);
  remote.deliver(DeliveryMode.INIT, 0, false);
  machine.take();
  assert.deepEqual(machine.events.splice(0), ["init"]);
  remote.deliver(DeliveryMode.FIXED, 0x41, false);
  remote.triggerLocal(Lvt.LINT1);
  remote.deliver(DeliveryMode.INIT, 0, false);
  remote.deliver(DeliveryMode.STARTUP, 0x9a, false);
  remote.deliver(DeliveryMode.NMI, 0, false);
  machine.take();
  assert.equal(machine.events[0], "nmi", "the pin's, which the INIT makes forget");
  assert.deepEqual(machine.events.slice(1), ["init", "nmi", "startup 154"]);
});

test("what comes after an INIT is not lost wherever it is taken meanwhile, and start-ups of two threads do not mix", (t) => {
  let at = 0;
  for (let more = true; more; at++) {
    const machine = new PostedMachine();
    const { remote } = machine;
    remote.deliver(DeliveryMode.NMI, 0, false);
    more = interleave(
      t,
      at,
      () => {
        remote.deliver(DeliveryMode.INIT, 0, false);
        remote.deliver(DeliveryMode.STARTUP, 0x9a, false);
      },
      () => machine.take(),
    );
    machine.take();
    const events = machine.events.join(", ");
    assert.match(events, /^(nmi, )?init, startup 154$/);
  }
  assert.ok(at > 4);
  for (at = 0; ; at++) {
    const machine = new PostedMachine();
    const { remote } = machine;
    const more = interleave(
      t,
      at,
      () => remote.deliver(DeliveryMode.STARTUP, 0x55, false),
      () => remote.deliver(DeliveryMode.STARTUP, 0xaa, false),
    );
    machine.take();
    assert.equal(machine.events.length, 1);
    assert.match(machine.events[0], /^startup (85|170)$/);
    if (!more) break;
  }
});

test("a pulse of a pin is not missed", () => {
  const machine = new PostedMachine();
  machine.enable();
  // LINT0: fixed vector 50, edge triggered.
  machine.apic.writeMmio(0x350, 4, 50);
  machine.remote.setLint(0, true);
  machine.take();
  assert.equal(machine.apic.pendingVector(), 50);
  machine.apic.accept(50);
  machine.apic.writeMmio(0xb0, 4, 0);
  machine.remote.setLint(0, false);
  machine.remote.setLint(0, true);
  machine.take();
  assert.equal(machine.apic.pendingVector(), 50);
});

test("a local APIC that is restored with a pin asserted sees the pin fall", () => {
  const before = new PostedMachine();
  before.remote.setLint(0, true);
  before.take();
  const machine = new PostedMachine();
  restoreState(machine.apic, saveState(before.apic));
  machine.restored();
  machine.enable();
  assert.ok(machine.apic.lintAsserted(0));
  machine.remote.setLint(0, false);
  machine.take();
  assert.ok(!machine.apic.lintAsserted(0));
  machine.remote.setLint(0, true);
  machine.take();
  assert.ok(machine.apic.lintAsserted(0));
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
