// Several vCPUs of one core: starting processors (SDM Vol. 3A 9.4.3, 9.4.4), INIT in every state, events across processors, and saves in each of
// these states (REQUIREMENTS 101 to 115, TRAPS 2, 3, 9, 18).

import assert from "node:assert/strict";
import { test } from "node:test";
import { ACTIVITY, RIP, SEGMENTS, SREG } from "../../src/isa/state.ts";
import { DeliveryMode } from "../../src/vmm/io/interrupt-message.ts";
import { Lvt } from "../../src/vmm/io/lapic-registers.ts";
import { restoreState, saveState } from "../../src/vmm/state.ts";
import { ACTIVITY_STATE } from "../../src/vmm/vcpu.ts";
import { CoreMachine } from "./core-machine.ts";
import { type FakeEngine, halt, type Step } from "./fake-engine.ts";

const ICR = 0xfee00300;
const ICR_HIGH = 0xfee00310;
const COMMAND = {
  INIT: 0x4500,
  INIT_DEASSERT: 0x8500,
  STARTUP: 0x4600,
  NMI: 0x4400,
  FIXED: 0x4000,
  OTHERS: 0xc0000,
} as const;

/** Sends IPIs: destination APIC and low word. */
function send(...commands: readonly (readonly [destination: number, low: number])[]): Step {
  return (_engine, host) => {
    for (const [destination, low] of commands) {
      host.mmioWrite(ICR_HIGH, 0, 4, (destination << 24) >>> 0);
      host.mmioWrite(ICR, 0, 4, low);
    }
    return undefined;
  };
}

const run: Step = () => undefined;
const sleep = halt(true);
const stop = halt(false);

function activity(engine: FakeEngine): number {
  return Number(engine.get(ACTIVITY));
}

/** Two processors, the second one started at 10000H and running. */
function started(): { m: CoreMachine; boot: FakeEngine; other: FakeEngine } {
  const m = new CoreMachine(2).virtualWire();
  const [boot, other] = m.engines;
  boot.steps.push(send([1, COMMAND.INIT], [1, COMMAND.STARTUP | 0x10]));
  other.steps.push(run);
  m.run(1);
  assert.equal(activity(other), ACTIVITY_STATE.RUNNING);
  other.resets.length = 0;
  return { m, boot, other };
}

test("the sequence that operating systems send starts a processor once: INIT, its de-assertion, SIPI, SIPI", () => {
  const m = new CoreMachine(2).virtualWire();
  const [boot, other] = m.engines;
  boot.steps.push(
    send([1, COMMAND.INIT], [1, COMMAND.INIT_DEASSERT], [1, COMMAND.STARTUP | 0x9a], [1, COMMAND.STARTUP | 0x12]),
  );
  other.steps.push((engine) => {
    engine.set(RIP, 0x123);
    return undefined;
  });
  m.run(1);
  assert.deepEqual(other.resets, ["init"]);
  assert.equal(other.get(SEGMENTS[SREG.CS].base), 0x9a000n);
  assert.equal(other.get(RIP), 0x123n);
  assert.equal(m.vm.vcpus[0].apic.statistics.ipisSent, 3);
  assert.equal(m.vm.vcpus[1].apic.statistics.ipisReceived, 3);
});

test("a start-up IPI to a processor that does not wait for one does nothing", () => {
  const { m, boot, other } = started();
  other.set(RIP, 0x456);
  boot.steps.push(send([1, COMMAND.STARTUP | 0x33]), stop);
  other.steps.push(run, sleep);
  m.run(1);
  assert.equal(other.get(RIP), 0x456n);
  m.run(1);
  assert.equal(activity(other), ACTIVITY_STATE.HALTED);
  m.router.send({
    destination: 1,
    broadcast: 0xff,
    logical: false,
    mode: DeliveryMode.STARTUP,
    vector: 0x33,
    level: false,
  });
  assert.equal(m.vm.vcpus[1].prepare(), false, "nor to one that is halted");
});

test("INIT of a running processor: it waits for a SIPI; id, base and mode stay, requests and events are gone", () => {
  const { m, boot, other } = started();
  const { apic } = m.vm.vcpus[1];
  apic.writeBase(apic.readBase() | 0x400n);
  apic.writeX2apic(0x0f, 0x1ffn);
  apic.deliver(DeliveryMode.FIXED, 0x55, false);
  apic.triggerLocal(Lvt.LINT1);
  apic.deliver(DeliveryMode.NMI, 0, false);
  boot.steps.push(send([1, COMMAND.INIT]));
  m.run(1);
  assert.deepEqual(other.resets, ["init"]);
  assert.equal(activity(other), ACTIVITY_STATE.WAIT_FOR_SIPI);
  assert.deepEqual(other.injected, []);
  assert.equal(apic.readX2apic(0x02), 1n);
  assert.equal(apic.ldr, 2, "derived from the id, also after INIT");
  assert.equal(apic.readX2apic(0x22), 0n, "IRR");
  assert.equal(apic.softwareEnabled, false);
  boot.steps.push(send([1, COMMAND.STARTUP | 0x20]));
  other.steps.push(run);
  m.run(1);
  assert.equal(other.get(SEGMENTS[SREG.CS].base), 0x20000n);
  assert.deepEqual(other.injected, [], "the NMI from before INIT does not come");
});

test("an NMI that comes while a processor waits for a SIPI is taken after it", () => {
  const sequences: readonly (readonly number[])[] = [
    [COMMAND.INIT, COMMAND.STARTUP | 0x20, COMMAND.NMI],
    [COMMAND.INIT, COMMAND.NMI, COMMAND.STARTUP | 0x20],
  ];
  for (const sequence of sequences) {
    const { m, boot, other } = started();
    boot.steps.push(send(...sequence.map((command) => [1, command] as const)), run);
    other.steps.push(run, run);
    m.run(2);
    assert.deepEqual(other.resets, ["init"]);
    assert.deepEqual(other.injected, ["nmi 2"]);
  }
  const { m, boot, other } = started();
  boot.steps.push(send([1, COMMAND.INIT]), send([1, COMMAND.NMI]), send([1, COMMAND.STARTUP | 0x20]));
  m.run(2);
  assert.deepEqual(other.injected, []);
  other.steps.push(run);
  m.run(1);
  assert.deepEqual(other.injected, ["nmi 2"]);
});

test("INIT is seen before the next instruction of a processor that executes", () => {
  const m = new CoreMachine(2).virtualWire();
  m.engine.steps.push((engine, host) => {
    send([0, COMMAND.INIT])(engine, host);
    assert.equal(engine.exitRequests, 1, "the engine is to come back");
    return undefined;
  });
  m.engine.steps.push(stop);
  m.run(2);
  assert.deepEqual(m.engine.resets, ["init"]);
});

test("INIT while a processor waits for a SIPI, or is halted, leaves it waiting", () => {
  const m = new CoreMachine(3).virtualWire();
  const [boot, waiting, halted] = m.engines;
  boot.steps.push(send([2, COMMAND.INIT], [2, COMMAND.STARTUP | 5]), send([0, COMMAND.OTHERS | COMMAND.INIT]));
  halted.steps.push(stop);
  m.run(1);
  assert.equal(activity(halted), ACTIVITY_STATE.HALTED);
  m.run(1);
  for (const engine of [waiting, halted]) assert.equal(activity(engine), ACTIVITY_STATE.WAIT_FOR_SIPI);
  boot.steps.push(send([0, COMMAND.OTHERS | COMMAND.STARTUP | 0x44]));
  waiting.steps.push(run);
  halted.steps.push(run);
  m.run(1);
  for (const engine of [waiting, halted]) assert.equal(engine.get(SEGMENTS[SREG.CS].base), 0x44000n);
});

test("a processor that was not started takes no interrupts, and is not addressed by lowest priority", () => {
  const m = new CoreMachine(2).virtualWire();
  m.vm.vcpus[1].apic.init();
  const message = { broadcast: 0xff, logical: false, vector: 0x44, level: false };
  assert.equal(m.router.send({ ...message, destination: 1, mode: DeliveryMode.FIXED }), false);
  assert.equal(m.router.send({ ...message, destination: 0xff, mode: DeliveryMode.LOWEST_PRIORITY }), true);
  assert.equal(m.vm.vcpus[0].apic.pendingVector(), 0x44);
  assert.equal(m.vm.vcpus[1].prepare(), false);
});

test("an NMI wakes a processor that is halted with interrupts off, a fixed interrupt does not", () => {
  const { m, boot, other } = started();
  m.vm.vcpus[1].apic.writeMmio(0xf0, 4, 0x1ff);
  other.steps.push(stop);
  boot.steps.push(send([1, COMMAND.FIXED | 0x61]), send([1, COMMAND.NMI]));
  m.run(1);
  assert.equal(activity(other), ACTIVITY_STATE.HALTED);
  other.steps.push(run);
  m.run(1);
  assert.deepEqual(other.injected, ["nmi 2"]);
});

test("an NMI that nobody can take keeps no machine alive: at a processor that waits for a SIPI, or one that handles an NMI", () => {
  const waiting = new CoreMachine(2).virtualWire();
  waiting.engine.steps.push(send([0, COMMAND.OTHERS | COMMAND.NMI]), stop);
  assert.deepEqual(waiting.run(), { kind: "exit", exit: { reason: "halt" } });

  const handling = new CoreMachine().virtualWire();
  handling.engine.steps.push(send([0, COMMAND.NMI]), send([0, COMMAND.NMI]), stop);
  assert.deepEqual(handling.run(), { kind: "exit", exit: { reason: "halt" } });
  assert.deepEqual(handling.engine.injected, ["nmi 2"]);

  const interruptible = new CoreMachine().virtualWire();
  interruptible.engine.steps.push(send([0, COMMAND.NMI]), send([0, COMMAND.NMI]), sleep);
  assert.equal(interruptible.run().kind, "idle");
});

test("a guest that waits in PAUSE gives the rest of its slice away where another vCPU shares the thread", () => {
  const alone = new CoreMachine(1);
  alone.run(1);
  assert.equal(alone.engine.pauses, 0, "alone on its thread it has nobody to give to");
  const pair = new CoreMachine(2).virtualWire();
  pair.run(1);
  assert.equal(pair.engine.pauses, 8);
});

/** Everything of a machine that a snapshot has of its processors, into another one. */
function copyOf(m: CoreMachine): CoreMachine {
  const copy = new CoreMachine(m.engines.length);
  m.vm.vcpus.forEach((vcpu, n) => {
    copy.engines[n].restore(m.engines[n].save());
    restoreState(copy.vm.vcpus[n].apic, saveState(vcpu.apic));
    restoreState(copy.vm.vcpus[n], saveState(vcpu));
  });
  return copy;
}

test("what is saved waiting, halted, or with INIT, SIPI or NMI on the way goes on so", () => {
  const waiting = copyOf(new CoreMachine(2).virtualWire());
  assert.equal(activity(waiting.engines[1]), ACTIVITY_STATE.WAIT_FOR_SIPI);
  waiting.engine.steps.push(send([1, COMMAND.STARTUP | 8]));
  waiting.engines[1].steps.push(run);
  waiting.run(1);
  assert.equal(waiting.engines[1].get(SEGMENTS[SREG.CS].base), 0x8000n, "no INIT is needed again");

  const initPending = started().m;
  initPending.vm.vcpus[1].apic.deliver(DeliveryMode.INIT, 0, false);
  const afterInit = copyOf(initPending);
  assert.equal(afterInit.vm.vcpus[1].prepare(), false);
  assert.equal(activity(afterInit.engines[1]), ACTIVITY_STATE.WAIT_FOR_SIPI);

  const { m: halted, other } = started();
  other.steps.push(stop);
  halted.engine.steps.push(run);
  halted.run(1);
  halted.vm.vcpus[1].apic.deliver(DeliveryMode.NMI, 0, false);
  const afterNmi = copyOf(halted);
  assert.equal(afterNmi.vm.vcpus[1].prepare(), true);
  assert.deepEqual(afterNmi.engines[1].injected, ["nmi 2"]);
});

test("reset puts every processor back, whatever it did", () => {
  const { m, other } = started();
  other.steps.push(stop);
  m.run(1);
  m.vm.vcpus[1].apic.deliver(DeliveryMode.INIT, 0, false);
  m.vm.reset();
  assert.equal(activity(m.engine), ACTIVITY_STATE.RUNNING);
  assert.equal(activity(other), ACTIVITY_STATE.WAIT_FOR_SIPI);
  assert.deepEqual(other.resets, ["power-on"]);
  assert.equal(m.vm.vcpus[1].prepare(), false);
});
