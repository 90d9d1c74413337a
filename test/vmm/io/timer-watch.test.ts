// The 8254's missed interrupts through each of the ways that IRQ 0 may take: they are made up for as the guest acknowledges, at the 8259 (by
// command, by itself, by poll), at the local APIC (edge and level triggered, with EOI broadcast suppressed too), and forgotten where the way
// changes (Linux, arch/x86/kvm/i8254.c: kvm_pit_ack_irq, pit_mask_notifer).

import assert from "node:assert/strict";
import { test } from "node:test";
import { InterruptRouter } from "../../../src/vmm/io/interrupt-router.ts";
import { IoApic } from "../../../src/vmm/io/ioapic.ts";
import { LocalApic } from "../../../src/vmm/io/lapic.ts";
import { Pic } from "../../../src/vmm/io/pic.ts";
import { Pit } from "../../../src/vmm/io/pit.ts";
import { TIMER_FREQUENCY, tscToNs } from "./apic-machine.ts";
import { Bench } from "./timed-devices.ts";

const VECTOR = 0x30;
const TIMER_PIN = 2;

class Board {
  readonly bench = new Bench();
  readonly router = new InterruptRouter();
  readonly pic: Pic;
  readonly ioapic: IoApic;
  readonly apic: LocalApic;
  readonly pit: Pit;

  constructor() {
    const { clock, timers, anomalies } = this.bench;
    const watch = { served: () => this.pit.ticks.acknowledged(), rerouted: () => this.pit.ticks.forget() };
    this.pic = new Pic({ anomalies, timerWatch: watch, intr: () => {} });
    this.ioapic = new IoApic({ bus: this.router, anomalies, watch: { pin: TIMER_PIN, ...watch } });
    this.router.addIoApic(this.ioapic);
    this.apic = new LocalApic({
      id: 0,
      bootstrap: true,
      timers,
      bus: this.router,
      anomalies,
      timerFrequency: TIMER_FREQUENCY,
      tscToNs,
      events: { interruptPending: () => {}, nmi: () => {}, init: () => {}, startup: () => {} },
    });
    this.router.addLocalApic(this.apic);
    const [first, second] = [this.pic.pin(0), this.ioapic.pin(TIMER_PIN, "pit")];
    const pin = {
      set: (asserted: boolean) => {
        first.set(asserted);
        second.set(asserted);
      },
    };
    this.pit = new Pit({ clock, timers, anomalies, pin });
    this.apic.writeMmio(0xf0, 4, 0x1ff);
    this.startPit();
  }

  /** 100 Hz, mode 2. */
  startPit(): void {
    for (const [port, value] of [
      [0x43, 0x34],
      [0x40, 0x9c],
      [0x40, 0x2e],
    ])
      this.pit.writePort(port, 1, value);
  }

  initPic(icw4: number): void {
    for (const [port, value] of [
      [0x20, 0x11],
      [0x21, VECTOR],
      [0x21, 4],
      [0x21, icw4],
      [0x21, 0xfe],
    ])
      this.pic.writePort(port, 1, value);
  }

  entry(low: number, high = 0): void {
    for (const [index, value] of [
      [0x11 + TIMER_PIN * 2, high],
      [0x10 + TIMER_PIN * 2, low],
    ]) {
      this.ioapic.writeMmio(0, 4, index);
      this.ioapic.writeMmio(0x10, 4, value);
    }
  }

  /** Interrupts that the local APIC has to give, each acknowledged by an EOI. */
  servedByApic(): number {
    let count = 0;
    while (this.apic.pendingVector() >= 0) {
      this.apic.acknowledge();
      this.apic.writeMmio(0xb0, 4, 0);
      count++;
    }
    return count;
  }

  servedByPic(end: () => void): number {
    let count = 0;
    while (this.pic.pending()) {
      assert.equal(this.pic.acknowledge(), VECTOR);
      end();
      count++;
    }
    return count;
  }
}

test("at the local APIC: each EOI brings the next of the ticks that were missed", () => {
  const b = new Board();
  b.entry(VECTOR);
  b.bench.stall(105_000_000);
  assert.equal(b.servedByApic(), 10);
  assert.equal(b.servedByApic(), 0);
  b.bench.advance(10_000_000);
  assert.equal(b.servedByApic(), 1);
});

test("at the local APIC: suppressing the broadcast of EOIs takes nothing away", () => {
  const b = new Board();
  b.apic.writeMmio(0xf0, 4, 0x11ff);
  b.entry(VECTOR);
  b.bench.stall(55_000_000);
  assert.equal(b.servedByApic(), 5);
});

test("at the local APIC: while a tick is in service others are not lost", () => {
  const b = new Board();
  b.entry(VECTOR);
  b.bench.advance(11_000_000);
  b.apic.acknowledge();
  for (let n = 0; n < 4; n++) b.bench.advance(10_000_000);
  b.apic.writeMmio(0xb0, 4, 0);
  assert.equal(b.servedByApic(), 4);
});

test("EOIs of other vectors acknowledge nothing", () => {
  const b = new Board();
  b.entry(VECTOR);
  b.bench.stall(55_000_000);
  b.apic.deliver(0, 0x80, false);
  b.apic.acknowledge();
  b.apic.writeMmio(0xb0, 4, 0);
  assert.equal(b.pit.ticks.statistics.reinjected, 0);
  assert.equal(b.servedByApic(), 5);
});

test("a pin that is masked, let through again, or given another vector owes nothing of before", () => {
  for (const entries of [[VECTOR | 0x10000, VECTOR], [VECTOR + 1]]) {
    const b = new Board();
    b.entry(VECTOR);
    b.bench.stall(55_000_000);
    for (const entry of entries) b.entry(entry);
    assert.equal(b.servedByApic(), 1, "the one that was in the IRR");
    assert.equal(b.pit.ticks.statistics.reinjected, 0);
    b.bench.advance(10_000_000);
    assert.equal(b.servedByApic(), 1);
  }
});

test("another destination is no other way: what is in service is acknowledged as before", () => {
  const b = new Board();
  b.entry(VECTOR);
  b.bench.stall(55_000_000);
  b.entry(VECTOR, 0xff000000);
  assert.equal(b.servedByApic(), 5);
});

test("a level-triggered entry: the EOI that clears the remote IRR acknowledges", () => {
  const b = new Board();
  b.entry(VECTOR | 0x8000);
  b.bench.stall(35_000_000);
  b.apic.acknowledge();
  const { reinjected } = b.pit.ticks.statistics;
  b.apic.writeMmio(0xb0, 4, 0);
  assert.equal(b.pit.ticks.statistics.reinjected, reinjected + 1);
});

test("at the 8259: EOI commands, automatic end of interrupt, polls", () => {
  const commands = [0x20, 0x60, 0xa0, 0xe0];
  for (const command of commands) {
    const b = new Board();
    b.initPic(1);
    b.bench.stall(105_000_000);
    assert.equal(
      b.servedByPic(() => b.pic.writePort(0x20, 1, command)),
      10,
      `command ${command.toString(16)}`,
    );
  }
  const automatic = new Board();
  automatic.initPic(3);
  automatic.bench.stall(105_000_000);
  assert.equal(
    automatic.servedByPic(() => {}),
    10,
  );
  const polled = new Board();
  polled.initPic(3);
  polled.bench.stall(105_000_000);
  let count = 0;
  for (;;) {
    polled.pic.writePort(0x20, 1, 0x0c);
    if (polled.pic.readPort(0x20, 1) !== 0x80) break;
    count++;
  }
  assert.equal(count, 10);
});

test("at the 8259: an EOI of another input acknowledges nothing, and unmasking IRQ 0 forgets", () => {
  const b = new Board();
  b.initPic(1);
  b.bench.stall(55_000_000);
  assert.equal(b.pic.acknowledge(), VECTOR);
  b.pic.writePort(0x20, 1, 0x61);
  assert.equal(b.pit.ticks.statistics.reinjected, 0);
  b.pic.writePort(0x21, 1, 0xff);
  b.pic.writePort(0x21, 1, 0xfe);
  b.pic.writePort(0x20, 1, 0x60);
  assert.equal(b.pit.ticks.statistics.reinjected, 0);
  b.bench.advance(10_000_000);
  assert.equal(
    b.servedByPic(() => b.pic.writePort(0x20, 1, 0x60)),
    1,
  );
});
