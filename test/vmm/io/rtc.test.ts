// MC146818A data sheet; ICH9 data sheet 13.7.2 for bit 7 of port 70h.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Rtc } from "../../../src/vmm/io/rtc.ts";
import { restoreState, saveState, uncoveredFields } from "../../../src/vmm/state.ts";
import { Bench, type RecordingPin, random } from "./timed-devices.ts";

const SECOND = 1_000_000_000;
const SET = 0x80;
const PIE = 0x40;
const AIE = 0x20;
const UIE = 0x10;
const DM = 0x04;
const H24 = 0x02;

const START = Date.UTC(2024, 1, 28, 23, 59, 57, 250);

class Board {
  readonly bench: Bench;
  readonly pin: RecordingPin;
  readonly rtc: Rtc;
  readonly masks: boolean[] = [];

  constructor(bench = new Bench(), wallClockAtZero = START) {
    this.bench = bench;
    this.pin = bench.pin();
    const { clock, timers, anomalies } = bench;
    const nmiMaskChanged = (masked: boolean) => this.masks.push(masked);
    this.rtc = new Rtc({ clock, timers, anomalies, pin: this.pin, wallClockAtZero, nmiMaskChanged });
  }

  get(index: number): number {
    this.rtc.writePort(0x70, 1, index);
    return this.rtc.readPort(0x71, 1);
  }

  put(index: number, value: number): void {
    this.rtc.writePort(0x70, 1, index);
    this.rtc.writePort(0x71, 1, value);
  }

  /** Century, year, month, date, hours, minutes, seconds and day of the week, as hexadecimal digits. */
  time(): string {
    return [0x32, 9, 8, 7, 4, 2, 0, 6].map((index) => this.get(index).toString(16).padStart(2, "0")).join(" ");
  }
}

test("every field is saved or declared derived", () => {
  assert.deepEqual(uncoveredFields(new Board().rtc), []);
});

test("follows the wall clock at virtual time 0, through a leap day; BCD, 24 hours, Sunday is 1", () => {
  const b = new Board();
  assert.equal(b.time(), "20 24 02 28 23 59 57 04");
  b.bench.advance(749_999_999);
  assert.equal(b.get(0), 0x57);
  b.bench.advance(1);
  assert.equal(b.get(0), 0x58);
  b.bench.advance(2 * SECOND);
  assert.equal(b.time(), "20 24 02 29 00 00 00 05");
  b.bench.advance(86_400 * SECOND);
  assert.equal(b.time(), "20 24 03 01 00 00 00 06");
  assert.equal(b.get(0x0d), 0x80);
});

test("binary data mode and 12-hour mode", () => {
  const b = new Board();
  b.put(0x0b, DM);
  assert.equal(b.time(), "14 18 02 1c 8b 3b 39 04");
  b.put(0x0b, 0);
  assert.equal(b.get(4), 0x91);
  b.bench.advance(3 * SECOND);
  assert.equal(b.get(4), 0x12);
  b.bench.advance(3600 * SECOND);
  assert.equal(b.get(4), 0x01);
  b.bench.advance(11 * 3600 * SECOND);
  assert.equal(b.get(4), 0x92);
});

test("UIP is set for 244 us before each update, and never with SET", () => {
  const b = new Board();
  const uip = () => b.get(0x0a) >> 7;
  const edge = 750_000_000 - 244_140;
  b.bench.advance(edge - 1);
  assert.equal(uip(), 0);
  b.bench.advance(1);
  assert.equal(uip(), 1);
  b.bench.advance(244_139);
  assert.equal(uip(), 1);
  b.bench.advance(1);
  assert.equal(uip(), 0);
  b.put(0x0b, SET | H24);
  b.bench.advance(SECOND - 100_000);
  assert.equal(uip(), 0);
});

test("SET freezes the bytes and clears UIE; without it time goes on from what was written, at the divider's next second", () => {
  const b = new Board();
  b.put(0x0b, SET | UIE | H24);
  assert.equal(b.get(0x0b), SET | H24);
  b.bench.advance(10 * SECOND);
  assert.equal(b.get(0), 0x57);
  for (const [index, value] of [
    [0, 0x58],
    [2, 0x59],
    [4, 0x23],
    [7, 0x31],
    [8, 0x12],
    [9, 0x99],
    [0x32, 0x19],
    [6, 0x06],
  ]) {
    b.put(index, value);
  }
  b.put(0x0b, H24);
  assert.equal(b.time(), "19 99 12 31 23 59 58 06");
  b.bench.advance(750_000_000);
  assert.equal(b.get(0), 0x59);
  b.bench.advance(SECOND);
  assert.equal(b.time(), "20 00 01 01 00 00 00 07");
});

test("bytes written without SET stay as written until the next update: the order of day and month does not matter", () => {
  const b = new Board();
  b.put(7, 0x31);
  b.put(8, 0x01);
  assert.equal(b.time(), "20 24 01 31 23 59 57 04");
  b.bench.advance(3 * SECOND);
  assert.equal(b.time(), "20 24 02 01 00 00 00 05");
});

test("the first update after a divider reset comes half a second later (how Linux sets the clock)", () => {
  const b = new Board();
  b.bench.advance(123_456_789);
  b.put(0x0a, 0x76);
  b.bench.advance(7 * SECOND);
  b.put(0, 0x30);
  b.put(0x0a, 0x26);
  b.bench.advance(499_999_999);
  assert.equal(b.get(0), 0x30);
  b.bench.advance(1);
  assert.equal(b.get(0), 0x31);
});

test("no date is impossible: what does not exist is carried over", () => {
  const b = new Board();
  b.put(0, 0x99);
  b.put(7, 0x00);
  b.put(8, 0xff);
  b.put(4, 0xff);
  b.bench.advance(2 * SECOND);
  for (const index of [0, 2, 4, 6, 7, 8, 9, 0x32]) assert.ok(b.get(index) <= 0x99);
});

test("periodic interrupts at every rate, from the divider chain, one until register C is read", () => {
  const hz = [0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
  for (let rs = 0; rs < 16; rs++) {
    const b = new Board(new Bench(), START - 250);
    b.put(0x0a, 0x20 | rs);
    b.put(0x0b, PIE | H24);
    for (let i = 0; i < 40 && rs > 0; i++) {
      const next = b.bench.timers.next();
      b.bench.advance(next - b.bench.clock.now());
      assert.equal(next, Math.ceil(((i + 1) * SECOND) / hz[rs]));
      assert.equal(b.pin.level, true);
      assert.equal(b.bench.timers.next(), Number.POSITIVE_INFINITY);
      assert.equal(b.get(0x0c) & 0xc0, 0xc0);
      assert.equal(b.pin.level, false);
    }
    if (rs === 0) assert.equal(b.bench.timers.next(), Number.POSITIVE_INFINITY);
    else assert.equal(b.pin.rises.length, 40);
  }
});

test("a guest that reads register C late gets one interrupt, not a burst", () => {
  const b = new Board();
  b.put(5, 0x12);
  b.put(0x0b, PIE | H24);
  b.bench.stall(10 * SECOND);
  assert.equal(b.pin.rises.length, 1);
  assert.equal(b.get(0x0c), 0xc0 | 0x10);
  assert.equal(b.get(0x0c), 0);
  b.bench.advance(976_563);
  assert.equal(b.pin.rises.length, 2);
});

test("flags stand whether enabled or not, and enabling one that stands interrupts at once", () => {
  const b = new Board();
  b.bench.advance(2 * SECOND);
  assert.equal(b.bench.timers.next(), Number.POSITIVE_INFINITY);
  b.put(0x0b, UIE | H24);
  assert.equal(b.pin.level, true);
  assert.equal(b.get(0x0c) & 0x90, 0x90);
  b.bench.advance(SECOND);
  assert.equal(b.pin.rises.length, 2);
  assert.equal(b.pin.rises[1], 2_750_000_000);
});

test("alarm at a time of day, and with don't-care bytes every hour, minute or second", () => {
  const alarm = (hours: number, minutes: number, seconds: number, forSeconds: number) => {
    const b = new Board(new Bench(), START - 250);
    b.put(5, hours);
    b.put(3, minutes);
    b.put(1, seconds);
    b.put(0x0b, AIE | H24);
    const rises: number[] = [];
    while (b.bench.timers.next() <= forSeconds * SECOND) {
      b.bench.advance(b.bench.timers.next() - b.bench.clock.now());
      assert.equal(b.get(0x0c) & 0xa0, 0xa0);
      rises.push(b.bench.clock.now() / SECOND);
    }
    return rises;
  };
  assert.deepEqual(alarm(0x00, 0x00, 0x05, 100_000), [8, 86_408]);
  assert.deepEqual(alarm(0xff, 0x30, 0x00, 8000), [1803, 5403]);
  assert.deepEqual(alarm(0xc0, 0xd5, 0x10, 150), [13, 73, 133]);
  assert.deepEqual(alarm(0xff, 0xff, 0xff, 4), [1, 2, 3, 4]);
  assert.deepEqual(alarm(0x23, 0x59, 0x57, 90_000), [86_400]);
  assert.deepEqual(alarm(0x24, 0x00, 0x00, 1_000_000), []);
  assert.deepEqual(alarm(0x00, 0x0a, 0x00, 1_000_000), []);
});

test("alarm in the 12-hour mode", () => {
  const b = new Board();
  b.put(5, 0x12);
  b.put(3, 0);
  b.put(1, 0);
  b.put(0x0b, AIE);
  b.bench.advance(2_750_000_000);
  assert.equal(b.pin.level, true);
});

test("RESET clears enables and flags, and leaves time and RAM", () => {
  const b = new Board();
  b.put(0x40, 0x5a);
  b.put(0x0b, PIE | UIE | DM | H24);
  b.bench.advance(5 * SECOND);
  assert.equal(b.pin.level, true);
  b.rtc.reset();
  assert.equal(b.pin.level, false);
  assert.equal(b.get(0x0b), DM | H24);
  assert.equal(b.get(0x0c), 0);
  assert.equal(b.get(0x40), 0x5a);
  assert.equal(b.get(0), 2);
});

test("bit 7 of port 70h masks NMIs and is not part of the index", () => {
  const b = new Board();
  b.rtc.writePort(0x70, 1, 0x8d);
  assert.equal(b.rtc.nmiMasked, true);
  assert.equal(b.rtc.readPort(0x71, 1), 0x80);
  b.rtc.writePort(0x70, 1, 0x0d);
  assert.deepEqual(b.masks, [true, false]);
  b.rtc.writePort(0x70, 2, 0x7750);
  assert.equal(b.get(0x50), 0x77);
});

test("memory sizes and their checksum", () => {
  const b = new Board();
  b.rtc.setMemorySize(512 * 2 ** 20, 0);
  const word = (low: number) => b.get(low) | (b.get(low + 1) << 8);
  assert.equal(word(0x15), 640);
  assert.equal(word(0x17), 0xffff);
  assert.equal(word(0x30), 0xffff);
  assert.equal(word(0x34), (512 - 16) * 16);
  let sum = 0;
  for (let index = 0x10; index <= 0x2d; index++) sum += b.get(index);
  assert.equal((b.get(0x2e) << 8) | b.get(0x2f), sum);
  b.rtc.setMemorySize(3 * 2 ** 30, 5 * 2 ** 30);
  assert.equal(word(0x34), 0xbf00);
  assert.equal(word(0x5b) | (b.get(0x5d) << 16), 0x14000);
  b.rtc.setMemorySize(8 * 2 ** 20, 0);
  assert.equal(word(0x17), 7168);
  assert.equal(word(0x34), 0);
  b.rtc.setCmos(0x3d, 0x21);
  assert.equal(b.get(0x3d), 0x21);
  assert.throws(() => b.rtc.setCmos(0x0b, 0), RangeError);
  assert.throws(() => b.rtc.setCmos(0x32, 0), RangeError);
});

test("while the HPET has IRQ 8, nothing interrupts and no host timer runs", () => {
  const b = new Board();
  b.put(0x0b, PIE | H24);
  b.rtc.setInterruptConnected(false);
  b.bench.advance(SECOND);
  assert.equal(b.pin.rises.length, 0);
  b.rtc.setInterruptConnected(true);
  assert.equal(b.pin.rises.length, 1);
});

test("random accesses never throw, and restore in mid-work goes on alike", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const next = random(seed);
    const bench = new Bench();
    const a = new Board(bench);
    const b = new Board(bench, 0);
    for (let i = 0; i < 400; i++) {
      if (i === 200) {
        restoreState(b.rtc, saveState(a.rtc));
        b.pin.level = a.pin.level;
        a.pin.rises.length = b.pin.rises.length = 0;
      }
      const index = next(4) === 0 ? next(256) : next(14);
      const value = next(4) === 0 ? 0x26 : next(256);
      const read = next(2) === 0;
      const results = (i < 200 ? [a] : [a, b]).map((board) => (read ? board.get(index) : board.put(index, value)));
      assert.equal(results[0], results[results.length - 1]);
      bench.stall(next(3) === 0 ? next(0xffffffff) * next(100) : next(2_000_000));
    }
    assert.deepEqual(a.pin.rises, b.pin.rises);
    assert.deepEqual(saveState(a.rtc), saveState(b.rtc));
  }
});

test("time read at random moments is that of the host's calendar", () => {
  const next = random(99);
  const bench = new Bench();
  const b = new Board(bench);
  for (let i = 0; i < 300; i++) {
    bench.stall(next(0xffffffff) * 1000);
    const date = new Date(Math.floor(START + bench.clock.now() / 1e6));
    const digits = date.toISOString().replace(/\D/g, "").slice(0, 14).match(/../g);
    assert.equal(b.time(), [...(digits ?? []), `0${date.getUTCDay() + 1}`].join(" "));
  }
});
