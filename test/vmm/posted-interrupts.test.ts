// What threads post to the local APIC of a vCPU that another thread runs, and what that one tells of it (SDM Vol. 3C 30.6), without threads: each
// side is called by hand, also between any two atomic accesses of the other.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MailboxBell } from "../../src/host/mailbox.ts";
import { ManualClock, TimerQueue } from "../../src/vmm/clock.ts";
import { DeliveryMode } from "../../src/vmm/io/interrupt-message.ts";
import { InterruptRouter } from "../../src/vmm/io/interrupt-router.ts";
import { LocalApic } from "../../src/vmm/io/lapic.ts";
import { Lvt } from "../../src/vmm/io/lapic-registers.ts";
import { IoBus } from "../../src/vmm/io-space.ts";
import { GLOBAL, VCPU } from "../../src/vmm/parallel/control-area.ts";
import { type ExitChannel, ExitReceiver } from "../../src/vmm/parallel/exit-channel.ts";
import { PostedInterrupts, RemoteApic } from "../../src/vmm/parallel/remote-apic.ts";
import type { VcpuLink } from "../../src/vmm/parallel/vcpu-link.ts";
import { restoreState, saveState } from "../../src/vmm/state.ts";
import { interleave, makeChannel, Shared } from "./shared-area.ts";

class PostedMachine {
  readonly shared: Shared;
  readonly refused: number[] = [];
  readonly events: string[] = [];
  readonly apic: LocalApic;
  readonly remote: RemoteApic;
  readonly channel: ExitChannel;
  readonly receiver: ExitReceiver;
  readonly anomalies: string[] = [];
  private readonly link: VcpuLink;
  private readonly interrupts: PostedInterrupts;

  /** One vCPU of a machine, by default its only one. */
  constructor(shared = new Shared(), vcpu = 0) {
    this.shared = shared;
    const link = shared.links[vcpu];
    this.link = link;
    this.channel = makeChannel(link, new MailboxBell(shared.mailbox), {});
    this.receiver = new ExitReceiver(link);
    const router = new InterruptRouter();
    this.interrupts = new PostedInterrupts(
      link,
      () => this.apic,
      (vector) => this.refused.push(vector),
    );
    this.apic = new LocalApic({
      id: 5 + vcpu,
      bootstrap: false,
      timers: new TimerQueue(new ManualClock()),
      // As a vCPU's thread has it (src/machine/parallel/vcpu-thread.ts).
      bus: {
        sendIpi: (source, shorthand, message) => router.sendIpi(source, shorthand, message),
        endOfInterrupt: (vector) => this.channel.endOfInterrupt(vector),
        watchedVector: () => Atomics.load(shared.area.words, GLOBAL.WATCHED_VECTOR),
        watchedServed: (vector) => this.channel.watchedServed(vector),
        identityChanged: () => this.identityChanged(),
        acceptanceChanged: () => {
          this.identityChanged();
          this.channel.retry();
        },
      },
      anomalies: { anomaly: (_source, what) => this.anomalies.push(what) },
      timerFrequency: 1e9,
      tscToNs: () => 0,
      events: {
        interruptPending: () => {},
        nmi: () => this.events.push("nmi"),
        init: () => this.events.push("init"),
        startup: (vector) => this.events.push(`startup ${vector}`),
      },
    });
    this.remote = new RemoteApic(link, 5 + vcpu);
    this.interrupts.publishIdentity();
  }

  private identityChanged(): void {
    if (this.apic !== undefined) this.interrupts.publishIdentity();
  }

  enable(): void {
    this.apic.writeMmio(0xf0, 4, 0x1ff);
  }

  postLevel(): void {
    this.remote.deliver(DeliveryMode.FIXED, 0x41, true);
  }

  restored(): void {
    this.interrupts.restored();
  }

  take(): void {
    this.interrupts.take(this.link.takeRequests());
  }

  running(running: boolean): void {
    this.interrupts.running(running);
  }

  /** Whether `vector` was posted, and not taken yet. */
  posted(vector: number): boolean {
    return (this.link.load(VCPU.POSTED_EDGE + (vector >>> 5)) & (1 << (vector & 31))) !== 0;
  }

  /** What the devices' thread is told, in order. */
  news(): string[] {
    const told: string[] = [];
    this.receiver.takeNews({
      io: new IoBus({ anomaly: () => {} }),
      acknowledge: () => 0,
      endOfInterrupt: (vector) => told.push(`end ${vector}`),
      watchedServed: (vector) => told.push(`watched ${vector}`),
      retry: () => told.push("retry"),
    });
    return told;
  }
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
      // The other vector's word is taken after the first one's.
      for (const vector of [0x41, 0x61]) machine.remote.deliver(DeliveryMode.FIXED, vector, false);
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

test("a local APIC that is disabled by software is out of lowest-priority arbitration at once", () => {
  const machine = new PostedMachine();
  machine.enable();
  assert.equal(machine.remote.softwareEnabled, true);
  machine.apic.writeMmio(0xf0, 4, 0xff);
  assert.equal(machine.remote.softwareEnabled, false);
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

test("lowest priority between threads: the priority counts that a vCPU had when it entered guest code or left it", () => {
  const shared = new Shared(3);
  const machines = [0, 1, 2].map((vcpu) => new PostedMachine(shared, vcpu));
  const [first, second, disabled] = machines;
  const router = new InterruptRouter(() => shared.area.apicGeneration);
  for (const { remote } of machines) router.addLocalApic(remote);
  first.enable();
  second.enable();
  for (const machine of machines) machine.running(false);
  let vector = 0x40;
  /** Which of them gets a message to all. */
  const taker = (): number => {
    vector++;
    const message = { destination: 0xff, broadcast: 0xff, logical: false, vector, level: false };
    assert.ok(router.send({ ...message, mode: DeliveryMode.LOWEST_PRIORITY }));
    return machines.findIndex((machine) => machine.posted(vector));
  };
  assert.deepEqual([taker(), taker(), taker(), taker()], [1, 0, 1, 0], "round among equals");
  first.apic.deliver(DeliveryMode.FIXED, 0x81, false);
  first.apic.accept(0x81);
  first.running(true);
  assert.deepEqual([taker(), taker()], [1, 1]);
  first.apic.writeMmio(0xb0, 4, 0);
  first.running(false);
  second.apic.setTpr(0x20);
  second.running(true);
  assert.deepEqual([taker(), taker()], [0, 0], "it has ended its interrupt, and may be halted for long");
  assert.ok(!disabled.remote.softwareEnabled);
});

test("NMI, ExtINT, SMI and the local interrupt LINT1 reach the local APIC", () => {
  const machine = new PostedMachine();
  assert.ok(!machine.remote.deliver(DeliveryMode.EXTINT, 0, false), "disabled by software it takes none (11.4.7.2)");
  machine.enable();
  const { remote, apic } = machine;
  assert.ok(remote.deliver(DeliveryMode.NMI, 0, false));
  machine.take();
  assert.deepEqual(machine.events.splice(0), ["nmi"]);
  assert.ok(remote.deliver(DeliveryMode.EXTINT, 0, false));
  assert.ok(!apic.extIntPending());
  machine.take();
  assert.ok(apic.extIntPending());
  assert.ok(remote.deliver(DeliveryMode.SMI, 0, false));
  machine.take();
  assert.deepEqual(machine.anomalies, ["SMI (there is no system management mode)"]);
  apic.writeMmio(0x360, 4, 0x30);
  remote.triggerLocal(Lvt.LINT1);
  machine.take();
  assert.equal(apic.pendingVector(), 0x30);
  remote.triggerLocal(Lvt.TIMER);
  assert.ok(!machine.shared.links[0].requested, "its own sources are fired by nobody else");
});

test("the devices' thread is told of EOIs that it waits for, and of a local APIC that begins to accept interrupts", () => {
  const machine = new PostedMachine();
  assert.deepEqual(machine.news(), []);
  machine.enable();
  assert.deepEqual(machine.news(), ["retry"]);
  Atomics.store(machine.shared.area.words, GLOBAL.WATCHED_VECTOR, 0x32);
  for (const [vector, level] of [
    [0x31, false],
    [0x32, false],
    [0x41, true],
  ] as const) {
    machine.remote.deliver(DeliveryMode.FIXED, vector, level);
    machine.take();
    assert.equal(machine.apic.acknowledge(), vector);
    machine.apic.writeMmio(0xb0, 4, 0);
  }
  assert.deepEqual(machine.news(), ["end 65", "watched 50"]);
  machine.apic.writeMmio(0xf0, 4, 0xff);
  assert.deepEqual(machine.news(), []);
  machine.enable();
  assert.deepEqual(machine.news(), ["retry"]);
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
