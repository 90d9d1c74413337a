// The ways out: ACPI power management, 0xcf9, port 0x92, the keyboard controller, the debug exit port.

import assert from "node:assert/strict";
import { test } from "node:test";
import { AcpiPm } from "../../src/devices/acpi-pm.ts";
import { DebugExit } from "../../src/devices/debug-exit.ts";
import { DebugCon } from "../../src/devices/debugcon.ts";
import { I8042 } from "../../src/devices/i8042.ts";
import { Port92 } from "../../src/devices/port92.ts";
import { ResetControl } from "../../src/devices/reset-control.ts";
import { PmTimer } from "../../src/vmm/io/pmtimer.ts";
import { restoreState, type Stateful, saveState, uncoveredFields } from "../../src/vmm/state.ts";
import { FakeMachine, FakePin, Random } from "./fakes.ts";

const BASE = 0x600;
const [PM1_STS, PM1_EN, PM1_CNT, GPE0_STS, GPE0_EN] = [0, 2, 4, 0xc, 0xe].map((offset) => BASE + offset);
const SMI = { port: 0xb2, enable: 0xa0, disable: 0xa1 };

function makePm(smiCommand?: typeof SMI) {
  const machine = new FakeMachine();
  const sci = new FakePin();
  const calls = { powerOffs: 0 };
  const { io, log } = machine;
  const { clock, timers } = machine;
  const carried = (): void => pm.timerCarry();
  const timer = new PmTimer({ clock, timers, anomalies: log, port: BASE + 8, bits: 24, carried });
  io.mapPorts("pm-timer", BASE + 8, 4, timer);
  const pm: AcpiPm = new AcpiPm({ io, log, base: BASE, sci, timer, onPowerOff: () => calls.powerOffs++, smiCommand });
  return { machine, io, sci, pm, calls };
}

function roundTrip(one: Stateful, two: Stateful): void {
  assert.deepEqual(uncoveredFields(one), []);
  restoreState(two, saveState(one));
  assert.deepEqual(saveState(two), saveState(one));
}

test("ACPI mode is permanent without an SMI command port, and switched with one (ACPI 4.8.1.2.1)", () => {
  const fixed = makePm();
  assert.equal(fixed.io.in(PM1_CNT, 2), 1);
  fixed.io.out(PM1_CNT, 0, 2);
  assert.equal(fixed.io.in(PM1_CNT, 2), 1, "SCI_EN is the firmware's");
  const switched = makePm(SMI);
  assert.equal(switched.io.in(PM1_CNT, 2), 0);
  switched.io.out(0xb2, 0xa0);
  assert.equal(switched.io.in(PM1_CNT, 2), 1);
  switched.io.out(0xb3, 0x5a);
  assert.equal(switched.io.in(0xb3), 0x5a);
  switched.io.out(0xb2, 0xa1);
  assert.equal(switched.io.in(PM1_CNT, 2), 0);
});

test("power button: status, SCI while enabled, cleared by ones (4.8.2.2.1.1, 4.8.3.1)", () => {
  const { io, sci, pm } = makePm();
  pm.pressPowerButton();
  assert.equal(io.in(PM1_STS, 2), 0x100);
  assert.equal(sci.level, false);
  io.out(PM1_EN, 0xffff, 2);
  assert.equal(io.in(PM1_EN, 2), 0x721, "only enables that exist");
  assert.equal(sci.level, true);
  io.out(PM1_STS, 0xfeff, 2);
  assert.equal(sci.level, true);
  io.out(PM1_STS, 0x100, 2);
  assert.deepEqual([io.in(PM1_STS, 2), sci.level, sci.edges], [0, false, 1]);
});

test("byte and dword accesses cover the registers that they should", () => {
  const { machine, io, pm } = makePm();
  pm.pressPowerButton();
  machine.advance(2.5e9);
  io.out(PM1_EN + 1, 0x01);
  assert.equal(io.in(PM1_EN, 2), 0x100);
  assert.equal(io.in(PM1_STS, 4), 0x01000101);
  io.out(PM1_STS + 1, 0x01);
  assert.equal(io.in(PM1_STS, 2), 1, "the other byte's status is not cleared");
  io.out(PM1_STS, 0x00200001, 4);
  assert.deepEqual([io.in(PM1_STS, 2), io.in(PM1_EN, 2)], [0, 0x20]);
});

test("the PM timer's carry is TMR_STS, and interrupts with TMR_EN (4.8.3.1)", () => {
  const { machine, io, sci } = makePm();
  io.out(PM1_EN, 1, 2);
  machine.advance(2.3e9);
  assert.deepEqual([io.in(PM1_STS, 2), sci.level], [0, false]);
  machine.advance(0.1e9);
  assert.deepEqual([io.in(PM1_STS, 2), sci.level], [1, true]);
  io.out(PM1_STS, 1, 2);
  assert.deepEqual([io.in(PM1_STS, 2), sci.level], [0, false]);
  machine.advance(2.4e9);
  assert.equal(sci.edges, 2);
});

test("soft-off: SLP_EN with the SLP_TYP of S5, not with another (4.8.3.2.1)", () => {
  const { machine, io, calls } = makePm();
  io.out(PM1_CNT, 5 << 10, 2);
  assert.equal(calls.powerOffs, 0);
  assert.equal(io.in(PM1_CNT, 2), (5 << 10) | 1);
  io.out(PM1_CNT, (1 << 10) | (1 << 13), 2);
  assert.deepEqual([calls.powerOffs, machine.log.total], [0, 1]);
  io.out(PM1_CNT, (5 << 10) | (1 << 13), 2);
  assert.equal(calls.powerOffs, 1);
  assert.equal(io.in(PM1_CNT, 2) & (1 << 13), 0, "SLP_EN reads as zero");
  io.out(PM1_CNT, 5 << 10, 2);
  io.out(PM1_CNT + 1, 0x34);
  assert.equal(calls.powerOffs, 2, "the high byte alone does it");
});

test("general-purpose events (4.8.4.1)", () => {
  const { io, sci, pm } = makePm();
  pm.raiseEvent(3);
  assert.deepEqual([io.in(GPE0_STS), sci.level], [8, false]);
  io.out(GPE0_EN, 8);
  assert.equal(sci.level, true);
  io.out(GPE0_STS, 8);
  assert.deepEqual([io.in(GPE0_STS), sci.level], [0, false]);
});

test("power management state, and reset", () => {
  const one = makePm(SMI);
  one.io.out(0xb2, 0xa0);
  one.io.out(PM1_EN, 0x100, 2);
  one.pm.pressPowerButton();
  one.pm.raiseEvent(9);
  one.io.out(GPE0_EN, 0x0200, 2);
  const two = makePm(SMI);
  roundTrip(one.pm, two.pm);
  assert.equal(two.sci.edges, 0);
  one.pm.reset();
  roundTrip(makePm(SMI).pm, two.pm);
  assert.deepEqual(saveState(one.pm), saveState(two.pm));
  assert.equal(one.sci.level, false);
});

test("0xcf9: a rising RST_CPU resets (ICH9 13.7.5)", () => {
  const resets: boolean[] = [];
  const control = new ResetControl({ onReset: (hard) => resets.push(hard) });
  control.writePort(0xcf9, 1, 0x02);
  assert.deepEqual(resets, []);
  control.writePort(0xcf9, 1, 0x06);
  control.writePort(0xcf9, 1, 0x0e);
  assert.deepEqual(resets, [true]);
  assert.equal(control.readPort(), 0x0e);
  control.writePort(0xcf9, 1, 0x00);
  control.writePort(0xcf9, 1, 0x04);
  assert.deepEqual(resets, [true, false]);
  roundTrip(control, new ResetControl({ onReset: () => assert.fail("a restore resets nothing") }));
});

test("port 0x92: A20 and fast reset", () => {
  const make = () => {
    const machine = new FakeMachine();
    const calls = { a20: [] as boolean[], resets: 0 };
    const port = new Port92({ io: machine.io, onA20: (open) => calls.a20.push(open), onInit: () => calls.resets++ });
    return { io: machine.io, calls, port };
  };
  const { io, calls, port } = make();
  io.out(0x92, 2);
  assert.deepEqual([calls.a20, calls.resets, io.in(0x92)], [[true], 0, 2]);
  io.out(0x92, 3);
  io.out(0x92, 3);
  assert.deepEqual([calls.a20, calls.resets], [[true], 1]);
  const other = make();
  roundTrip(port, other.port);
  assert.deepEqual(other.calls, { a20: [true], resets: 0 });
});

function makeController() {
  const machine = new FakeMachine();
  const interrupt = new FakePin();
  const calls = { a20: [] as boolean[], resets: 0 };
  const controller = new I8042({
    io: machine.io,
    interrupt,
    onA20: (open) => calls.a20.push(open),
    onInit: () => calls.resets++,
  });
  const { io } = machine;
  /** Sends a command and its parameters, and reads the answer if there is one. */
  const command = (value: number, ...parameters: number[]): number | undefined => {
    io.out(0x64, value);
    for (const parameter of parameters) io.out(0x60, parameter);
    return (io.in(0x64) & 1) !== 0 ? io.in(0x60) : undefined;
  };
  return { io, interrupt, calls, controller, command };
}

test("keyboard controller: what Linux's i8042 driver does at start", () => {
  const { io, command } = makeController();
  assert.equal(io.in(0x64) & 1, 0, "nothing to flush");
  assert.equal(io.in(0x64) & 0x10, 0x10, "the keyboard lock is open");
  assert.equal(command(0xaa), 0x55);
  const control = command(0x20) ?? 0;
  assert.equal(command(0x20), control, "two reads agree");
  assert.equal(command(0x60, (control | 0x10) & ~1), undefined);
  assert.equal(command(0x20), (control | 0x10) & ~1);
  io.out(0x64, 0xd3);
  io.out(0x60, 0x5a);
  assert.equal(
    io.in(0x64) & 0x21,
    1,
    "the loop of the auxiliary port comes back as a keyboard's: there is no such port",
  );
  assert.equal(io.in(0x60), 0x5a);
  assert.equal(command(0xa9), 1, "its test fails at once");
  command(0xa8);
  assert.equal((command(0x20) ?? 0) & 0x20, 0x20);
  assert.equal(command(0xab), 0);
});

test("keyboard controller: a keyboard that is not there answers 'resend' with the timeout bit", () => {
  const { io, interrupt, command } = makeController();
  command(0x60, 0x01);
  io.out(0x60, 0xf2);
  assert.equal(interrupt.level, true);
  assert.equal(io.in(0x64) & 0x41, 0x41);
  assert.equal(io.in(0x60), 0xfe);
  assert.equal(interrupt.level, false);
  assert.equal(io.in(0x64) & 0x41, 0);
});

test("keyboard controller: reset by 0xfe and by the output port, A20 by the output port", () => {
  const { io, calls, command } = makeController();
  io.out(0x64, 0xff);
  assert.equal(calls.resets, 0, "a pulse of no line");
  io.out(0x64, 0xfe);
  assert.equal(calls.resets, 1);
  assert.equal(command(0xd0), 0x03);
  command(0xd1, 0x01);
  command(0xd1, 0x03);
  assert.deepEqual(calls.a20, [false, true]);
  command(0xd1, 0x02);
  assert.equal(calls.resets, 2);
});

test("keyboard controller state", () => {
  const one = makeController();
  one.command(0x60, 0x03);
  one.command(0xd1, 0x01);
  one.io.out(0x64, 0xaa);
  one.io.out(0x64, 0x65);
  const two = makeController();
  roundTrip(one.controller, two.controller);
  assert.equal(two.interrupt.edges, 0);
  assert.deepEqual(two.calls.a20, [false]);
  two.io.out(0x60, 0x77);
  assert.equal(two.io.in(0x60), 0x55);
  assert.equal(two.command(0x25), 0x77);
  one.controller.reset();
  assert.deepEqual(saveState(one.controller), saveState(makeController().controller));
});

test("debug exit: (value << 1) | 1", () => {
  const { io } = new FakeMachine();
  const seen: number[] = [];
  new DebugExit({ io, onExit: (status) => seen.push(status) });
  io.out(0xf4, 0x10);
  io.out(0xf4, 0, 4);
  io.out(0xf6, 0xff);
  io.out(0xf4, 0xffffffff, 4);
  assert.deepEqual(seen, [0x21, 1, 0x1ff, 0xffffffff]);
  new DebugExit({ io, port: 0x501, size: 1, onExit: (status) => seen.push(status) });
  io.out(0x501, 3);
  assert.equal(seen.at(-1), 7);
});

test("debug console", () => {
  const { io } = new FakeMachine();
  let output = "";
  new DebugCon({
    io,
    onOutput: (byte) => {
      output += String.fromCharCode(byte);
    },
  });
  for (const char of "ok") io.out(0xe9, char.charCodeAt(0));
  assert.deepEqual([output, io.in(0xe9)], ["ok", 0xe9]);
});

test("random accesses never throw", () => {
  const random = new Random(5);
  const { io } = makeController();
  const { io: pmIo, pm } = makePm(SMI);
  for (let i = 0; i < 20000; i++) {
    const size = random.pick([1, 2, 4] as const);
    const value = random.next() % 2 ** (8 * size);
    const port = random.pick([0x60, 0x64]);
    if (random.below(2) === 0) io.in(port, size);
    else io.out(port, value, size);
    if (random.below(2) === 0) pmIo.in(BASE + random.below(16), size);
    else pmIo.out(BASE + random.below(16), value, size);
    if (i % 100 === 0) saveState(pm);
  }
});
