// The 16550A as its data sheet (National Semiconductor PC16550D) and the drivers of Linux and FreeBSD expect it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Uart16550 } from "../../src/devices/uart16550.ts";
import { restoreState, saveState, uncoveredFields } from "../../src/vmm/state.ts";
import { FakeMachine, FakePin, Random, statefulParts } from "./fakes.ts";

const PORT = 0x3f8;
const [RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR] = [0, 1, 2, 3, 4, 5, 6, 7];
const text = (string: string): Uint8Array => new TextEncoder().encode(string);

class Bench {
  readonly machine = new FakeMachine();
  readonly pin = new FakePin();
  output = "";
  room = 0;
  readonly breaks: boolean[] = [];
  readonly uart = new Uart16550({
    name: "com1",
    io: this.machine.io,
    port: PORT,
    interrupt: this.pin,
    timers: this.machine.timers,
    onOutput: (byte) => {
      this.output += String.fromCharCode(byte);
    },
    onRoom: () => this.room++,
    onBreak: (on) => this.breaks.push(on),
  });

  in(register: number): number {
    return this.machine.io.in(PORT + register);
  }

  out(register: number, value: number): void {
    this.machine.io.out(PORT + register, value);
  }

  /** 8 bits, FIFOs with the trigger level 8, OUT2, the given interrupts. */
  open(interrupts: number): void {
    this.out(LCR, 3);
    this.out(IIR, 0x81);
    this.out(MCR, 0x0b);
    this.out(IER, interrupts);
  }

  readAll(): string {
    let read = "";
    while ((this.in(LSR) & 1) !== 0) read += String.fromCharCode(this.in(RBR));
    return read;
  }
}

test("values after reset (table I), with the line set up as firmware does", () => {
  const bench = new Bench();
  assert.deepEqual(
    [IER, IIR, LCR, MCR, LSR, MSR].map((register) => bench.in(register)),
    [0, 1, 3, 0, 0x60, 0xb0],
  );
});

test("what Linux's driver probes: scratch, IER, loopback of the modem lines, FIFOs, no bigger relative", () => {
  const bench = new Bench();
  bench.out(SCR, 0xa5);
  assert.equal(bench.in(SCR), 0xa5);
  bench.out(IER, 0xff);
  assert.equal(bench.in(IER), 0x0f);
  bench.out(IER, 0);
  bench.out(MCR, 0x1a);
  assert.equal(bench.in(MSR) & 0xf0, 0x90);
  bench.out(MCR, 0);
  bench.out(IIR, 1);
  assert.equal(bench.in(IIR) >> 6, 3);
  bench.out(LCR, 0x80);
  bench.out(IIR, 0x21);
  assert.equal(bench.in(IIR) & 0x20, 0, "no 64-byte FIFO");
  bench.out(LCR, 0xbf);
  assert.notEqual(bench.in(IIR), 0, "no extended features at EFR");
  bench.out(LCR, 0);
  bench.out(IIR, 0);
  assert.equal(bench.in(IIR) >> 6, 0);
});

test("divisor latch", () => {
  const bench = new Bench();
  bench.out(LCR, 0x83);
  bench.out(RBR, 0x34);
  bench.out(IER, 0x12);
  assert.deepEqual([bench.in(RBR), bench.in(IER), bench.output], [0x34, 0x12, ""]);
  bench.out(LCR, 3);
  assert.equal(bench.in(IER), 0);
  assert.equal(bench.uart.divisor, 0x1234);
});

test("output, masked to the character's length", () => {
  const bench = new Bench();
  bench.out(LCR, 3);
  for (const byte of text("hello")) bench.out(RBR, byte);
  assert.equal(bench.output, "hello");
  bench.out(LCR, 2);
  bench.out(RBR, 0xc1);
  assert.equal(bench.output, "helloA");
  assert.equal(bench.in(LSR), 0x60);
});

test("the THR empty interrupt: raised by enabling and by emptying, cleared by reading IIR or writing THR (8.6)", () => {
  const bench = new Bench();
  bench.open(2);
  assert.equal(bench.pin.level, true);
  assert.equal(bench.in(IIR), 0xc2);
  assert.equal(bench.pin.level, false);
  assert.equal(bench.in(IIR), 0xc1);
  bench.out(RBR, 0x41);
  assert.equal(bench.in(IIR), 0xc2);
  bench.out(IER, 0);
  bench.out(IER, 2);
  assert.equal(bench.in(IIR), 0xc2, "enabling it again raises it again, or Linux takes the chip for a broken one");
  bench.out(IER, 3);
  assert.equal(bench.in(IIR), 0xc1, "but it must be a change");
});

test("OUT2 gates the interrupt line on a PC", () => {
  const bench = new Bench();
  bench.open(2);
  assert.equal(bench.pin.level, true);
  bench.out(MCR, 3);
  assert.equal(bench.pin.level, false);
  bench.out(MCR, 0xb);
  assert.equal(bench.pin.level, true);
});

test("received data: trigger level, timeout of four characters, priorities (8.11, table III)", () => {
  const bench = new Bench();
  bench.out(LCR, 0x80);
  bench.out(RBR, 1);
  bench.out(IER, 0);
  bench.open(1);
  bench.out(IIR, 0x81);
  bench.uart.receive(text("1234567"));
  assert.equal(bench.pin.level, false, "below the level of 8");
  const fourCharacters = Math.ceil((4 * 10 * 16 * 1e9) / 1843200);
  bench.machine.advance(fourCharacters - 1);
  assert.equal(bench.pin.level, false);
  bench.machine.advance(1);
  assert.equal(bench.in(IIR), 0xcc);
  assert.equal(bench.in(RBR), 0x31);
  assert.equal(bench.pin.level, false, "a read clears the timeout");
  bench.machine.advance(fourCharacters);
  assert.equal(bench.in(IIR), 0xcc);
  bench.uart.receive(text("89"));
  assert.equal(bench.in(IIR), 0xc4, "the level counts before the timeout");
  assert.equal(bench.readAll(), "23456789");
  bench.machine.advance(10 * fourCharacters);
  assert.equal(bench.pin.level, false);
  assert.equal(bench.in(IIR), 0xc1);
});

test("without FIFOs each character interrupts", () => {
  const bench = new Bench();
  bench.out(LCR, 3);
  bench.out(MCR, 8);
  bench.out(IER, 1);
  bench.uart.receive(text("ab"));
  assert.equal(bench.in(IIR), 4);
  assert.equal(bench.in(RBR), 0x61);
  assert.equal(bench.in(IIR), 4);
  assert.equal(bench.readAll(), "b");
  assert.equal(bench.in(IIR), 1);
});

test("long input flows through the FIFO without loss; the host is held back and told of room", () => {
  const bench = new Bench();
  bench.open(1);
  const input = Uint8Array.from({ length: 70000 }, (_, i) => 32 + (i % 90));
  const taken = bench.uart.receive(input);
  assert.equal(taken, 65536);
  assert.equal(bench.room, 1, "sixteen went on into the FIFO at once");
  assert.equal(bench.uart.receive(input.subarray(taken)), 16);
  const read = bench.readAll();
  assert.equal(read.length, 65536 + 16);
  assert.equal(read.slice(-3), String.fromCharCode(...input.subarray(65549, 65552)));
  assert.equal(bench.in(LSR) & 2, 0, "no overrun");
});

test("input from before the driver is ready survives its start", () => {
  const bench = new Bench();
  bench.uart.receive(text("ls\n"));
  for (const control of [1, 7, 0, 7, 1]) bench.out(IIR, control);
  for (const register of [LSR, RBR, IIR, MSR, LSR, RBR]) bench.in(register);
  bench.open(5);
  assert.equal(bench.readAll(), "ls\n");
});

test("a guest that polls gets its input too", () => {
  const bench = new Bench();
  bench.uart.receive(text("xy"));
  let polls = 0;
  while ((bench.in(LSR) & 1) === 0) polls++;
  assert.ok(polls < 10);
  assert.equal(bench.in(RBR), 0x78);
  assert.equal(bench.in(LSR) & 1, 1);
});

test("FCR clears the receiver of what a guest could hear; a change of the enable bit of what it sent itself (8.5)", () => {
  const bench = new Bench();
  bench.open(1);
  bench.uart.receive(text("abcdefghijklmnopqrst"));
  bench.out(IIR, 0x83);
  assert.equal(bench.readAll(), "qrst", "the sixteen in the FIFO are gone");
  bench.out(MCR, 0x10);
  bench.out(RBR, 0x30);
  bench.out(IIR, 0);
  assert.equal(bench.in(LSR) & 1, 0);
});

test("no input is lost while a driver starts: Linux enables the interrupt before the FIFOs", () => {
  const bench = new Bench();
  bench.uart.receive(text("uname\n"));
  // A probe that reads the status often, and clears what is there.
  for (let n = 0; n < 10; n++) bench.in(LSR);
  bench.out(IIR, 1);
  bench.out(IIR, 7);
  bench.out(IIR, 0);
  bench.out(MCR, 9);
  bench.out(IER, 5);
  bench.out(IIR, 1);
  bench.out(IIR, 0x81);
  assert.equal(bench.readAll(), "uname\n");
});

test("input that waits again may be more than there is room for", () => {
  const bench = new Bench();
  const most = bench.uart.receive(new Uint8Array(1 << 20));
  bench.open(1);
  // The FIFO has taken sixteen; there is room for as many.
  assert.equal(bench.uart.receive(text("0123456789abcdefgh")), 16);
  bench.out(IIR, 0);
  assert.equal(bench.uart.input.length, most + 16 - 1, "one is in the buffer");
  assert.equal(bench.uart.receive(text("x")), 0);
});

test("loopback: data, overrun, modem lines with changes (8.7)", () => {
  const bench = new Bench();
  bench.out(LCR, 3);
  bench.out(IIR, 1);
  bench.out(MCR, 0x10);
  assert.equal(bench.in(MSR) & 0xf0, 0);
  bench.uart.receive(text("outside"));
  for (let i = 0; i < 17; i++) bench.out(RBR, 0x30 + i);
  assert.equal(bench.output, "");
  assert.equal(bench.in(LSR), 0x63);
  assert.equal(bench.in(LSR), 0x61, "reading clears the overrun");
  assert.equal(bench.readAll(), "0123456789:;<=>?", "the last one was lost");
  bench.in(MSR);
  bench.out(MCR, 0x1f);
  assert.equal(bench.in(MSR), 0xfb, "all lines high; RI rising is no change");
  bench.out(MCR, 0x10);
  assert.equal(bench.in(MSR), 0x0f, "RI falling is");
  assert.equal(bench.in(MSR), 0);
});

test("modem status interrupt and lines of the other side", () => {
  const bench = new Bench();
  bench.open(8);
  bench.uart.setLines(0x30);
  assert.equal(bench.in(IIR), 0xc0);
  assert.equal(bench.in(MSR), 0x38);
  assert.equal(bench.pin.level, false);
});

test("break: received with its character, sent through LCR (8.4, 8.1)", () => {
  const bench = new Bench();
  bench.open(5);
  bench.uart.receive(text("a"));
  bench.uart.sendBreak();
  assert.equal(bench.in(IIR), 0xc6, "line status has the highest priority");
  assert.equal(bench.in(LSR), 0xe1, "an error is in the FIFO, not at its top");
  assert.equal(bench.in(RBR), 0x61);
  assert.equal(bench.in(LSR), 0xf9);
  assert.equal(bench.in(LSR), 0x61);
  assert.equal(bench.in(RBR), 0);
  bench.out(LCR, 0x43);
  bench.out(LCR, 0x03);
  assert.deepEqual(bench.breaks, [true, false]);
});

test("all state is covered, and a restored UART continues as the other", () => {
  const one = new Bench();
  const two = new Bench();
  one.open(0xd);
  one.uart.receive(text("0123456789abcdefghijklmn"));
  one.uart.setLines(0x10);
  for (let i = 0; i < 4; i++) one.in(RBR);
  one.machine.advance(1000);
  one.uart.sendBreak();
  for (const part of statefulParts(one.uart)) assert.deepEqual(uncoveredFields(part), [], part.schema.kind);
  two.machine.clock.set(one.machine.clock.now());
  restoreState(two.uart, saveState(one.uart));
  assert.equal(two.pin.edges, 0, "no edge by restoring");
  for (const bench of [one, two]) bench.machine.advance(1e9);
  assert.deepEqual(saveState(two.uart), saveState(one.uart));
  assert.deepEqual([two.in(IIR), two.readAll(), two.in(MSR)], [one.in(IIR), one.readAll(), one.in(MSR)]);
  one.uart.reset();
  assert.deepEqual([one.in(IER), one.in(IIR), one.in(LSR), one.pin.level], [0, 1, 0x60, false]);
});

test("random accesses never throw, and no state leaves its type", () => {
  const random = new Random(3);
  const bench = new Bench();
  for (let i = 0; i < 20000; i++) {
    const size = random.pick([1, 1, 1, 2, 4] as const);
    if (random.below(2) === 0) bench.machine.io.in(PORT + random.below(8), size);
    else bench.machine.io.out(PORT + random.below(8), random.next() % 2 ** (8 * size), size);
    if (random.below(20) === 0) bench.uart.receive(random.bytes(random.below(30)));
    if (random.below(50) === 0) bench.uart.sendBreak();
    if (random.below(10) === 0) bench.machine.advance(random.below(1e6));
    if (i % 100 === 0) saveState(bench.uart);
  }
});
