// The run loop: slices and timers, idling, endings, vCPU states.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import { ACTIVITY, TSC_OFFSET } from "../../src/isa/state.ts";
import { timeOfTsc } from "../../src/vmm/tsc.ts";
import { VCPU_STATE, VcpuStateMachine } from "../../src/vmm/vcpu-state.ts";
import { CoreMachine } from "./core-machine.ts";
import { halt } from "./fake-engine.ts";

test("timers that are due fire before the next entry, in the order of their deadlines", () => {
  const m = new CoreMachine();
  const fired: string[] = [];
  const a = m.timers.create("a", () => fired.push("a"));
  const b = m.timers.create("b", () => fired.push("b"));
  a.arm(2000);
  b.arm(1000);
  m.engine.steps.push(() => {
    m.clock.advance(5000);
    return undefined;
  });
  m.engine.steps.push(() => {
    assert.deepEqual(fired, ["b", "a"]);
    return undefined;
  });
  m.run(2);
  assert.equal(m.vm.statistics.timerLateMaxNs, 4000);
});

test("a slice is no longer than the next timer is away, as far as the speed is known", () => {
  const m = new CoreMachine();
  // 100 instructions a microsecond.
  for (let i = 0; i < 100; i++)
    m.engine.steps.push((engine) => {
      m.clock.advance(Math.round((engine.budgets.at(-1) ?? 0) * 10));
      return undefined;
    });
  m.run(100);
  assert.equal(m.engine.budgets.at(-1), 10_000);
  m.timers.create("soon", () => {}).arm(m.clock.now() + 30_000);
  m.engine.steps.push(() => undefined);
  m.run(1);
  assert.equal(m.engine.budgets.at(-1), 3000);
});

test("a slow stretch does not leave the slices short for ever", () => {
  const m = new CoreMachine();
  let nsPerInstruction = 1000;
  for (let i = 0; i < 2000; i++)
    m.engine.steps.push((engine) => {
      m.clock.advance(Math.round((engine.budgets.at(-1) ?? 0) * nsPerInstruction));
      return undefined;
    });
  m.run(100);
  assert.equal(m.engine.budgets.at(-1), 500);
  nsPerInstruction = 5;
  m.run(1900);
  assert.equal(m.engine.budgets.at(-1), 20_000);
});

test("a timer that the guest sets to before the slice's end ends the slice", () => {
  const m = new CoreMachine();
  const timer = m.timers.create("t", () => {});
  m.io.mapPorts("timer", 0x10, 4, { readPort: () => 0, writePort: (_port, _size, value) => timer.arm(value) });
  m.engine.steps.push((engine, host) => {
    host.portOut(0x10, 4, 5_000_000);
    assert.equal(engine.exitRequests, 0);
    host.portOut(0x10, 4, 50_000);
    assert.equal(engine.exitRequests, 1);
    return undefined;
  });
  m.run(1);
});

test("idle: the time to be called again is the next timer's, and halted time is counted", () => {
  const m = new CoreMachine().virtualWire();
  m.engine.steps.push(halt(true));
  m.timers.create("t", () => m.vcpu.apic.deliver(0, 0x50, false)).arm(7000);
  assert.deepEqual(m.run(), { kind: "idle", wakeAt: 7000 });
  assert.equal(m.vcpu.host.state, VCPU_STATE.SLEEPING);
  m.clock.set(6000);
  assert.deepEqual(m.run(), { kind: "idle", wakeAt: 7000 });
  m.clock.set(7100);
  m.engine.steps.push(() => undefined);
  assert.deepEqual(m.run(1), { kind: "yield" });
  assert.deepEqual(m.engine.injected, ["interrupt 80"]);
  assert.equal(m.vm.statistics.nsIdle, 7100);
});

test("endings: triple fault, a device's word, an engine that cannot go on; the first counts", () => {
  const shutdown = new CoreMachine();
  shutdown.engine.steps.push((engine) => {
    engine.set(ACTIVITY, 2);
    return EXIT.SHUTDOWN;
  });
  assert.deepEqual(shutdown.run(), { kind: "exit", exit: { reason: "triple-fault" } });
  assert.deepEqual(shutdown.run(), { kind: "exit", exit: { reason: "triple-fault" } });

  const device = new CoreMachine();
  device.engine.steps.push((engine) => {
    device.vm.end({ reason: "power-off" });
    device.vm.end({ reason: "reset" });
    assert.equal(engine.exitRequests, 2);
    return undefined;
  });
  assert.deepEqual(device.run(), { kind: "exit", exit: { reason: "power-off" } });
});

test("reset starts an ended machine again", () => {
  const m = new CoreMachine(2);
  m.engine.steps.push((engine) => {
    engine.set(ACTIVITY, 2);
    return EXIT.SHUTDOWN;
  });
  m.run();
  m.vm.reset();
  assert.equal(m.vm.ended, undefined);
  assert.deepEqual(
    m.engines.map((engine) => engine.resets),
    [["power-on"], ["power-on"]],
  );
  m.engine.steps.push(() => undefined);
  assert.deepEqual(m.run(1), { kind: "yield" });
});

test("reset sets the TSCs of all vCPUs to zero at one time, whatever they were", () => {
  const m = new CoreMachine(2);
  m.clock.set(12_345);
  m.engines[0].set(TSC_OFFSET, 7n);
  m.vm.reset();
  for (const engine of m.engines) assert.equal(engine.get(TSC_OFFSET), 2n ** 64n - 12_345n);
});

test("vCPU states: only legal transitions", () => {
  const states = new VcpuStateMachine();
  assert.equal(states.state, VCPU_STATE.IDLE);
  assert.throws(() => states.enter(VCPU_STATE.RUNNING), /from idle to running/);
  states.enter(VCPU_STATE.FROZEN);
  states.enter(VCPU_STATE.RUNNING);
  assert.throws(() => states.enter(VCPU_STATE.IDLE));
  assert.throws(() => states.enter(VCPU_STATE.SLEEPING));
  states.enter(VCPU_STATE.FROZEN);
  states.enter(VCPU_STATE.SLEEPING);
  assert.throws(() => states.enter(VCPU_STATE.RUNNING));
  states.enter(VCPU_STATE.FROZEN);
  states.enter(VCPU_STATE.IDLE);
});

test("a vCPU is idle again when the run loop has returned, also by an exception of the engine", () => {
  const m = new CoreMachine();
  m.engine.steps.push(() => undefined);
  m.run(1);
  assert.equal(m.vcpu.host.state, VCPU_STATE.IDLE);
  m.engine.steps.push(() => {
    throw new Error("a fault of the engine");
  });
  assert.throws(() => m.run(1), /a fault of the engine/);
  assert.equal(m.vcpu.host.state, VCPU_STATE.IDLE);
});

test("TSC deadlines as times: past, future, beyond what can be counted, with offsets that wrap", () => {
  assert.equal(timeOfTsc(500n, 0n, 1000), 0);
  assert.equal(timeOfTsc(1000n, 0n, 1000), 0);
  assert.equal(timeOfTsc(1500n, 0n, 1000), 1500);
  assert.equal(timeOfTsc(1500n, 1000n, 400), 500);
  // An offset of -600: the guest set its TSC back.
  assert.equal(timeOfTsc(500n, (1n << 64n) - 600n, 1000), 1100);
  assert.equal(timeOfTsc((1n << 64n) - 1n, 0n, 1000), Number.POSITIVE_INFINITY);
});
