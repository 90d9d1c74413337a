// Events into a vCPU: order, windows, acceptance (SDM Vol. 3A 6.9, 6.8; 9.4 INIT and SIPI), and what it answers to its engine.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import { ACTIVITY, PENDING_VECTOR, RIP, SEGMENTS, SREG, TSC_OFFSET } from "../../src/isa/state.ts";
import { EVENT } from "../../src/vmm/engine.ts";
import { Lvt } from "../../src/vmm/io/lapic-registers.ts";
import { restoreState, saveState, uncoveredFields } from "../../src/vmm/state.ts";
import { CoreMachine } from "./core-machine.ts";
import { halt } from "./fake-engine.ts";

const FIXED = 0;

test("NMI first, then the maskable interrupt once the window opens; one event an entry", () => {
  const m = new CoreMachine().virtualWire();
  m.engine.interruptsEnabled = true;
  m.vcpu.apic.deliver(FIXED, 0x40, false);
  m.router.triggerLocal(Lvt.LINT1);
  m.vcpu.apic.writeMmio(0x360, 4, 0x400);
  m.router.triggerLocal(Lvt.LINT1);
  m.engine.steps.push(
    (engine) => {
      assert.deepEqual(engine.injected, ["nmi 2"]);
      assert.equal(engine.pending, EVENT.INTERRUPT);
      engine.interruptsEnabled = true;
      return EXIT.INTERRUPT_WINDOW;
    },
    (engine) => {
      assert.deepEqual(engine.injected, ["nmi 2", "interrupt 64"]);
      assert.equal(engine.pending, 0);
      return EXIT.BUDGET;
    },
  );
  m.run(2);
  assert.equal(m.vcpu.statistics.nmisInjected, 1);
  assert.equal(m.vcpu.statistics.interruptsInjected, 1);
});

test("a vCPU counts as running from when it takes what is posted, so also while an interrupt's frame is written", () => {
  let running = false;
  const m = new CoreMachine(1, undefined, undefined, {
    requested: () => false,
    take: () => {
      running = true;
    },
    running: (runs) => {
      running = runs;
    },
  }).virtualWire();
  m.engine.interruptsEnabled = true;
  m.vcpu.apic.deliver(FIXED, 0x40, false);
  const { inject } = m.engine;
  m.engine.inject = (kind, vector) => {
    assert.ok(running);
    return inject.call(m.engine, kind, vector);
  };
  m.engine.steps.push(() => {
    assert.ok(running);
    return undefined;
  });
  m.run(1);
  assert.deepEqual(m.engine.injected, ["interrupt 64"]);
  m.run();
  assert.ok(!running, "one that is halted has nothing to execute");
});

test("nothing goes over an exception that is still to be delivered, nor into an interrupt shadow", () => {
  const m = new CoreMachine().virtualWire();
  m.engine.interruptsEnabled = true;
  m.engine.set(PENDING_VECTOR, 14);
  m.vcpu.apic.deliver(FIXED, 0x40, false);
  m.engine.steps.push(
    (engine) => {
      assert.deepEqual(engine.injected, []);
      assert.equal(engine.pending, EVENT.INTERRUPT);
      engine.set(PENDING_VECTOR, 0xffffffff);
      engine.shadow = true;
      return undefined;
    },
    (engine) => {
      assert.deepEqual(engine.injected, []);
      engine.shadow = false;
      return undefined;
    },
    (engine) => {
      assert.deepEqual(engine.injected, ["interrupt 64"]);
      return undefined;
    },
  );
  m.run(3);
});

test("the 8259 gives its vector when the interrupt is taken, not when it is raised", () => {
  const m = new CoreMachine().virtualWire().initPic();
  const [three, one] = [m.pic.pin(3), m.pic.pin(1)];
  three.set(true);
  m.engine.steps.push(
    (engine) => {
      assert.deepEqual(engine.injected, []);
      // Before the window opens a more urgent line rises.
      one.set(true);
      engine.interruptsEnabled = true;
      return EXIT.INTERRUPT_WINDOW;
    },
    (engine) => {
      assert.deepEqual(engine.injected, ["interrupt 49"]);
      return undefined;
    },
  );
  m.run(2);
  assert.equal(m.vcpu.statistics.picInterruptsInjected, 1);
});

test("LINT0 that is fired as ExtINT, or as INTR, asks the 8259 once; masked it does nothing", () => {
  const fired = (prepare: (m: CoreMachine) => void): string[] => {
    const m = new CoreMachine().virtualWire().initPic();
    prepare(m);
    m.engine.interruptsEnabled = true;
    m.router.triggerLocal(Lvt.LINT0);
    m.engine.steps.push(
      () => EXIT.BUDGET,
      () => EXIT.BUDGET,
    );
    m.run(2);
    return m.engine.injected;
  };
  // No line is asserted, so the vector is that of the spurious IRQ 7 (8259A data sheet, "Interrupt Sequence").
  assert.deepEqual(
    fired(() => {}),
    ["interrupt 55"],
  );
  assert.deepEqual(
    fired((m) => m.vcpu.apic.writeBase(0xfee00100n)),
    ["interrupt 55"],
  );
  assert.deepEqual(
    fired((m) => m.vcpu.apic.writeMmio(0x350, 4, 0x10700)),
    [],
  );
});

test("a line that has dropped before it is taken gives the spurious vector", () => {
  const m = new CoreMachine().virtualWire().initPic();
  const pin = m.pic.pin(3);
  pin.set(true);
  m.engine.steps.push((engine) => {
    pin.set(false);
    engine.interruptsEnabled = true;
    return EXIT.INTERRUPT_WINDOW;
  });
  m.engine.steps.push((engine) => {
    assert.ok(engine.injected.length === 0 || engine.injected[0] === "interrupt 55", engine.injected.join());
    return undefined;
  });
  m.run(2);
});

test("the 8259's interrupt and then the next one, without an exit in between to wait for", () => {
  const m = new CoreMachine().virtualWire().initPic();
  m.engine.interruptsEnabled = true;
  m.pic.pin(1).set(true);
  m.vcpu.apic.deliver(FIXED, 0x51, false);
  m.engine.steps.push((engine) => {
    assert.deepEqual(engine.injected, ["interrupt 49"]);
    assert.equal(engine.pending, EVENT.INTERRUPT);
    engine.interruptsEnabled = true;
    return EXIT.INTERRUPT_WINDOW;
  });
  m.engine.steps.push((engine) => {
    assert.deepEqual(engine.injected, ["interrupt 49", "interrupt 81"]);
    return undefined;
  });
  m.run(2);
});

test("an interrupt that comes while the engine runs makes it come back", () => {
  const m = new CoreMachine().virtualWire();
  m.engine.interruptsEnabled = true;
  m.engine.steps.push((engine) => {
    const before = engine.exitRequests;
    m.vcpu.apic.deliver(FIXED, 0x40, false);
    assert.equal(engine.exitRequests, before + 1);
    return undefined;
  });
  m.run(1);
});

test("CR8 masks, and lowering it lets the interrupt in", () => {
  const m = new CoreMachine().virtualWire();
  m.engine.interruptsEnabled = true;
  m.engine.host.writeCr8(4);
  assert.equal(m.engine.host.readCr8(), 4);
  m.vcpu.apic.deliver(FIXED, 0x45, false);
  m.engine.steps.push((engine, host) => {
    assert.deepEqual(engine.injected, []);
    host.writeCr8(3);
    return undefined;
  });
  m.engine.steps.push((engine) => {
    assert.deepEqual(engine.injected, ["interrupt 69"]);
    return undefined;
  });
  m.run(2);
});

test("a halted vCPU wakes for an interrupt with IF set, and for an NMI without", () => {
  const m = new CoreMachine().virtualWire();
  m.vcpu.apic.writeMmio(0x360, 4, 0x400);
  m.engine.steps.push(halt(true));
  assert.deepEqual(m.run(), { kind: "idle", wakeAt: Number.POSITIVE_INFINITY });
  m.vcpu.apic.deliver(FIXED, 0x40, false);
  m.engine.steps.push((engine) => {
    assert.deepEqual(engine.injected, ["interrupt 64"]);
    m.router.triggerLocal(Lvt.LINT1);
    return halt(false)(engine, engine.host);
  });
  m.engine.steps.push(() => undefined);
  m.run(2);
  assert.deepEqual(m.engine.injected, ["interrupt 64", "nmi 2"]);
});

test("all vCPUs halted with IF clear is the end; with a maskable interrupt pending too", () => {
  const m = new CoreMachine().virtualWire();
  m.vcpu.apic.deliver(FIXED, 0x40, false);
  m.engine.steps.push(halt(false));
  assert.deepEqual(m.run(), { kind: "exit", exit: { reason: "halt" } });
});

test("processors that wait for a SIPI do not keep a machine alive, and start where it says", () => {
  const m = new CoreMachine(2).virtualWire();
  const [boot, other] = m.engines;
  assert.equal(other.get(ACTIVITY), 3);
  boot.steps.push((_engine, host) => {
    // INIT, then SIPI with vector 9AH, to APIC 1.
    host.mmioWrite(0xfee00310, 0, 4, 1 << 24);
    host.mmioWrite(0xfee00300, 0, 4, 0x4500);
    host.mmioWrite(0xfee00300, 0, 4, 0x469a);
    // A second one comes too late to count.
    host.mmioWrite(0xfee00300, 0, 4, 0x4612);
    return undefined;
  });
  other.steps.push((engine) => {
    assert.deepEqual(engine.resets, ["init"]);
    assert.equal(engine.get(SEGMENTS[SREG.CS].selector), 0x9a00);
    assert.equal(engine.get(SEGMENTS[SREG.CS].base), 0x9a000n);
    assert.equal(engine.get(RIP), 0n);
    return halt(false)(engine, engine.host);
  });
  boot.steps.push(halt(false));
  assert.deepEqual(m.run(), { kind: "exit", exit: { reason: "halt" } });
  assert.equal(other.steps.length, 0);
});

test("INIT of the bootstrap processor starts it at the reset vector", () => {
  const m = new CoreMachine().virtualWire();
  m.engine.steps.push((_engine, host) => {
    host.mmioWrite(0xfee00310, 0, 4, 0);
    host.mmioWrite(0xfee00300, 0, 4, 0x4500);
    return undefined;
  });
  m.engine.steps.push((engine) => {
    assert.deepEqual(engine.resets, ["init"]);
    assert.equal(engine.get(ACTIVITY), 0);
    return halt(false)(engine, engine.host);
  });
  m.run();
  assert.equal(m.engine.steps.length, 0);
});

test("MSRs: APIC base, x2APIC registers, TSC deadline; others do not exist", () => {
  const m = new CoreMachine();
  const { host } = m.engine;
  assert.deepEqual(host.readMsr(0x1b), [0xfee00900, 0]);
  assert.equal(host.readMsr(0x802), undefined);
  assert.equal(host.writeMsr(0x1b, 0xfee00d00, 0), true);
  assert.deepEqual(host.readMsr(0x802), [0, 0]);
  // In x2APIC mode the page is no register page any more.
  assert.equal(host.mmioRead(0xfee00030, 0, 4), 0xffffffff);
  assert.equal(host.writeMsr(0x6e0, 5000, 0), true);
  assert.equal(host.readMsr(0x123), undefined);
  assert.equal(host.writeMsr(0x123, 0, 0), false);
  const plain = new CoreMachine(1, ["apic"]).engine.host;
  assert.equal(plain.writeMsr(0x1b, 0xfee00d00, 0), false);
  assert.equal(plain.readMsr(0x6e0), undefined);
  assert.equal(new CoreMachine(1, []).engine.host.readMsr(0x1b), undefined);
  // Ignored are MSRs that there are not; what is wrong with those that there are stays wrong.
  const lenient = new CoreMachine(1, ["apic"], undefined, undefined, true);
  const { host: ignoring } = lenient.engine;
  assert.deepEqual([ignoring.readMsr(0x123), ignoring.writeMsr(0x123, 1, 2)], [[0, 0], true]);
  assert.deepEqual([ignoring.readMsr(0x802), ignoring.writeMsr(0x1b, 0, 0x10000)], [undefined, false]);
  assert.equal(lenient.counts.get("vcpu0: read of unknown MSR ignored 0x123"), 1);
  assert.equal(lenient.counts.get("vcpu0: write of unknown MSR ignored 0x123"), 1);
});

test("the APIC's page moves with its base", () => {
  const m = new CoreMachine();
  const { host } = m.engine;
  assert.equal(host.mmioRead(0xfee00030, 0, 4) & 0xff, 0x14);
  assert.equal(host.writeMsr(0x1b, 0x12345900, 0x2), true);
  assert.equal(host.mmioRead(0x12345030, 2, 4) & 0xff, 0x14);
  assert.equal(host.mmioRead(0xfee00030, 0, 4), 0xffffffff);
});

test("where the APIC's page is, its vCPU has no RAM, after a restore too", () => {
  const m = new CoreMachine(2);
  assert.equal(m.engine.host.writeMsr(0x1b, 0x3900, 0), true);
  const without = [
    { gpa: 0, length: 0x3000, host: 0x1000, writable: true },
    { gpa: 0x4000, length: 0xfc000, host: 0x5000, writable: true },
  ];
  assert.deepEqual(m.engine.slots, without);
  assert.equal(m.engines[1].slots, undefined);
  const copy = new CoreMachine();
  restoreState(copy.vcpu.apic, saveState(m.vcpu.apic));
  assert.deepEqual(copy.engine.slots, without);
  m.engine.host.writeMsr(0x1b, 0xff900, 0);
  assert.deepEqual(m.engine.slots, [{ gpa: 0, length: 0xff000, host: 0x1000, writable: true }]);
  m.engine.host.writeMsr(0x1b, 0xff100, 0);
  const all = [{ gpa: 0, length: 0x100000, host: 0x1000, writable: true }];
  assert.deepEqual(m.engine.slots, all);
  m.engine.host.writeMsr(0x1b, 0x900, 0);
  assert.deepEqual(m.engine.slots, [{ gpa: 0x1000, length: 0xff000, host: 0x2000, writable: true }]);
  m.vcpu.reset(0);
  assert.deepEqual(m.engine.slots, all);
});

test("a TSC deadline follows the guest's offset, also when it is changed afterwards", () => {
  const m = new CoreMachine().virtualWire();
  const { host } = m.engine;
  m.clock.set(1000);
  m.engine.steps.push((engine) => {
    engine.set(TSC_OFFSET, 1_000_000n);
    return undefined;
  });
  m.run(1);
  host.mmioWrite(0xfee00320, 0, 4, 0x40040);
  host.writeMsr(0x6e0, 1_005_000, 0);
  assert.equal(m.timers.next(), 5000);
  m.engine.steps.push((engine) => {
    engine.set(TSC_OFFSET, 0n);
    return undefined;
  });
  m.run(1);
  assert.equal(m.timers.next(), 1_005_000);
});

test("engine anomalies are counted by name", () => {
  const m = new CoreMachine();
  m.engine.host.anomaly(0, 0x3a);
  m.engine.host.anomaly(99, -1);
  assert.equal(m.counts.get("vcpu0: unknown msr read 0x3a"), 1);
  assert.equal(m.counts.get("vcpu0: anomaly 99 0xffffffff"), 1);
});

test("pending events are state, and are taken after a restore", () => {
  const m = new CoreMachine().virtualWire();
  m.vcpu.apic.writeMmio(0x360, 4, 0x400);
  assert.deepEqual(uncoveredFields(m.vcpu), []);
  m.engine.interruptsEnabled = true;
  m.engine.nmiBlocked = true;
  m.router.triggerLocal(Lvt.LINT1);
  m.vcpu.apic.deliver(FIXED, 0x40, false);
  const [events, apic] = [saveState(m.vcpu), saveState(m.vcpu.apic)];
  const copy = new CoreMachine();
  copy.engine.interruptsEnabled = true;
  restoreState(copy.vcpu.apic, apic);
  restoreState(copy.vcpu, events);
  copy.engine.steps.push((engine) => {
    assert.deepEqual(engine.injected, ["nmi 2"]);
    engine.interruptsEnabled = true;
    return EXIT.INTERRUPT_WINDOW;
  });
  copy.engine.steps.push((engine) => {
    assert.deepEqual(engine.injected, ["nmi 2", "interrupt 64"]);
    return undefined;
  });
  copy.run(2);
});
