// The interrupt controllers under random register writes, against the plain models in model/: the same values, the same events, after each
// step; the whole state every so often. SKEP_FUZZ_WRITES sets how many register writes there are (the full run is ten million).

import assert from "node:assert/strict";
import { test } from "node:test";
import { Lvt } from "../../../src/vmm/io/lapic-registers.ts";
import { Pic } from "../../../src/vmm/io/pic.ts";
import { ApicMachine } from "./apic-machine.ts";
import { InterruptSystemModel, PINS } from "./model/interrupt-system-model.ts";
import { PicModel } from "./model/pic-model.ts";

const WRITES = Number(process.env.SKEP_FUZZ_WRITES ?? 150_000);
const SOURCES = 2;
/** The timer's own business, and no business of the model. */
const CURRENT_COUNT = 0x39;
/** Ids of clusters of their own, and beyond eight bits. */
const IDS: readonly (readonly number[])[] = [
  [0],
  [0, 1],
  [0, 1, 2, 3],
  [0, 1, 5, 0x13, 0x21, 0x7f, 0xfe],
  [0, 3, 0x101, 0x12f, 0x300],
];
const STEPS = 4000;
const WHOLE_EVERY = 50;

class Random {
  private state: number;

  constructor(seed: number) {
    this.state = (Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995) | 1;
  }

  /** 32 bits, xorshift32 (Marsaglia 2003). */
  word(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x;
    return x >>> 0;
  }

  below(limit: number): number {
    return Math.floor((this.word() / 2 ** 32) * limit);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }
}

const REGISTERS = [
  0x08, 0x08, 0x0b, 0x0b, 0x0b, 0x0d, 0x0e, 0x0f, 0x28, 0x2f, 0x30, 0x30, 0x30, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35,
  0x35, 0x36, 0x37, 0x38, 0x3e, 0x3f,
];
const LVT_REGISTERS = [
  [Lvt.TIMER, 0x32],
  [Lvt.THERMAL, 0x33],
  [Lvt.PERFORMANCE, 0x34],
  [Lvt.LINT0, 0x35],
  [Lvt.LINT1, 0x36],
  [Lvt.ERROR, 0x37],
  [Lvt.CMCI, 0x2f],
] as const;

/** A machine and its model, which get the same accesses. */
class Pair {
  readonly m: ApicMachine;
  readonly model: InterruptSystemModel;
  readonly pins: { set(asserted: boolean): void }[][] = [];
  private readonly random: Random;
  private readonly ids: readonly number[];
  writes = 0;
  last = "";

  constructor(ids: readonly number[], random: Random) {
    this.ids = ids;
    this.random = random;
    this.m = new ApicMachine({ ids });
    this.model = new InterruptSystemModel(ids, SOURCES);
    for (let pin = 0; pin < PINS; pin++)
      this.pins.push(Array.from({ length: SOURCES }, (_, n) => this.m.ioapic.pin(pin, `s${n}`)));
  }

  private vector(): number {
    const { random } = this;
    return random.below(12) === 0 ? random.below(256) : 16 * (1 + random.below(15)) + random.below(2);
  }

  private destination(): number {
    const { random } = this;
    return random.pick([
      random.pick(this.ids),
      random.pick(this.ids),
      0xff,
      1 << random.below(8),
      random.below(256),
      0x11,
    ]);
  }

  /** A value for a local APIC's register: mostly one that means something. */
  private valueFor(register: number): number {
    const { random } = this;
    if (random.below(10) === 0) return random.word();
    const masked = random.below(4) === 0 ? 0x10000 : 0;
    switch (register) {
      case 0x08:
        return random.below(3) ? random.below(4) * 16 : random.below(256);
      case 0x0d:
        return (
          (random.pick([1 << random.below(8), (random.below(3) << 4) | (1 << random.below(4)), random.below(256)]) <<
            24) >>>
          0
        );
      case 0x0e:
        return random.pick([0xffffffff, 0x0fffffff, 0xffffffff, 0xf0000000, 0]);
      case 0x0f:
        return (random.below(6) ? 0x100 : 0) | (random.below(8) ? 0 : 0x1000) | this.vector();
      case 0x0b:
      case 0x28:
        return random.below(8) ? 0 : 1;
      case 0x30: {
        const mode = random.pick([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7]);
        const shorthand = random.pick([0, 0, 0, 1, 2, 3]);
        const trigger = random.pick([0, 0x4000, 0xc000, 0x8000]);
        return (shorthand << 18) | trigger | (random.below(2) << 11) | (mode << 8) | this.vector();
      }
      case 0x31:
        return (this.destination() << 24) >>> 0;
      case 0x32:
        return masked | (random.below(4) << 17) | this.vector();
      case 0x35:
      case 0x36:
        return masked | random.pick([0, 0, 0x8000]) | (random.pick([0, 0, 4, 5, 7, 7, 1]) << 8) | this.vector();
      case 0x3f:
        return this.vector();
      default:
        return masked | (random.pick([0, 0, 0, 4, 2]) << 8) | this.vector();
    }
  }

  /** One access or event on both sides, with what each of them gives. */
  step(): void {
    const { random, m, model } = this;
    const position = random.below(m.apics.length);
    const apic = m.apics[position];
    const plain = model.apics[position];
    const same = (what: string, got: unknown, wanted: unknown): void => {
      this.last = `${what} at ${position}`;
      if (!Object.is(got, wanted)) assert.fail(`${this.last}: ${String(got)}, the model ${String(wanted)}`);
    };
    const write = (register: number, value: number, high: number): void => {
      this.writes++;
      if (plain.mode === 2) {
        const msr = (BigInt(high) << 32n) | BigInt(value);
        same(
          `WRMSR ${register.toString(16)} ${msr.toString(16)}`,
          apic.writeX2apic(register, msr),
          plain.writeMsr(register, msr),
        );
      } else {
        apic.writeMmio(register * 16, 4, value);
        plain.writePage(register * 16, 4, value);
        same(`write ${register.toString(16)} ${value.toString(16)}`, 0, 0);
      }
    };
    switch (random.below(22)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
      case 6: {
        const register = random.below(12) ? random.pick(REGISTERS) : random.below(0x40);
        const high = random.below(4)
          ? register === 0x30
            ? this.x2apicDestination()
            : 0
          : random.pick([0, 0xffffffff, 1]);
        write(register, this.valueFor(register), high);
        break;
      }
      case 7: {
        const register = random.below(0x42);
        if (register === CURRENT_COUNT) break;
        if (plain.mode === 2 || random.below(8) === 0)
          same(`RDMSR ${register}`, apic.readX2apic(register), plain.readMsr(register));
        else {
          const offset = register * 16 + (random.below(3) ? 0 : random.below(16));
          const size = random.pick([4, 4, 2, 1] as const);
          if (offset < 0x1000)
            same(
              `read ${offset.toString(16)}/${size}`,
              apic.readMmio(offset, size) >>> 0,
              plain.readPage(offset, size),
            );
        }
        break;
      }
      case 8: {
        // A part of a register, or another mode's way.
        this.writes++;
        const offset = random.below(0x400);
        const size = random.pick([4, 2, 1] as const);
        const value = random.word();
        apic.writeMmio(offset, size, value);
        plain.writePage(offset, size, value);
        same(`write ${offset.toString(16)}/${size}`, 0, 0);
        break;
      }
      case 9:
      case 10: {
        this.writes++;
        const offset = random.pick([0, 0x10, 0x10, 0x10, 0x40, random.below(0x50)]);
        const size = random.pick([4, 4, 4, 2, 1] as const);
        let value = random.pick([random.below(0x44), this.vector(), random.word()]);
        if (offset === 0x10) value = this.entryValue();
        m.ioapic.writeMmio(offset, size, value);
        model.writeIo(offset, size, value);
        same(
          `I/O APIC ${offset.toString(16)} ${value.toString(16)}`,
          m.ioapic.readMmio(0x10, 4) >>> 0,
          model.readIo(0x10, 4),
        );
        break;
      }
      case 11: {
        this.writes += 2;
        const index = 0x10 + random.below(PINS * 2);
        const value = this.entryValue();
        m.ioWrite(index, value);
        model.writeIo(0, 4, index);
        model.writeIo(0x10, 4, value);
        same(`entry ${index.toString(16)} ${value.toString(16)}`, 0, 0);
        break;
      }
      case 12:
      case 13:
      case 14: {
        const pin = random.below(PINS);
        const source = random.below(SOURCES);
        const high = random.below(2) === 1;
        this.pins[pin][source].set(high);
        if (model.sources[pin][source] !== high) model.drive(pin, source, high);
        same(`pin ${pin}.${source} ${high}`, 0, 0);
        break;
      }
      case 15: {
        this.writes++;
        const address =
          (random.below(40) ? 0xfee00000n : 0xfed00000n) |
          BigInt((this.destination() & 0xff) << 12) |
          BigInt(random.below(4) << 2);
        const data = random.below(8)
          ? random.pick([0, 0, 0x4000, 0xc000, 0x8000]) | (random.below(3) ? 0 : random.below(8) << 8) | this.vector()
          : random.word();
        m.msi.sendMsi(address, data);
        model.msi(address, data);
        same(`MSI ${address.toString(16)} ${data.toString(16)}`, 0, 0);
        break;
      }
      case 16: {
        const pin = random.below(2) as 0 | 1;
        const high = random.below(2) === 1;
        apic.setLint(pin, high);
        plain.setPin(pin, high);
        same(`LINT${pin} ${high}`, 0, 0);
        break;
      }
      case 17: {
        const [lvt, register] = random.pick(LVT_REGISTERS);
        apic.triggerLocal(lvt);
        plain.trigger(register);
        same(`local ${register.toString(16)}`, 0, 0);
        break;
      }
      case 18:
        same("acknowledge", apic.acknowledge(), plain.acknowledge());
        break;
      case 19:
        if (plain.extInt()) {
          apic.extIntAccepted();
          plain.extIntMessage = false;
        }
        same("ExtINT", apic.extIntPending(), plain.extInt());
        break;
      case 20: {
        const value = random.below(16);
        same("CR8", apic.writeCr8(value), true);
        plain.tpr = value << 4;
        break;
      }
      default: {
        const rare = random.below(12);
        if (rare === 0) {
          apic.init();
          plain.clear();
          same("INIT taken", 0, 0);
        } else if (rare < 4) {
          this.writes++;
          const value = random.pick([
            0xfee00000n,
            0xfee00800n,
            0xfee00c00n,
            0xfee00400n,
            0xfed00800n,
            0x10000000800n,
            0xfee00801n,
          ]);
          same(`base ${value.toString(16)}`, apic.writeBase(value), plain.writeBase(value));
        } else write(0x0f, 0x100 | this.vector(), 0);
      }
    }
  }

  private x2apicDestination(): number {
    const { random } = this;
    const id = random.pick(this.ids);
    return random.pick([id, 0xffffffff, 0xff, (((id >> 4) << 16) | random.below(0x10000)) >>> 0, random.word()]);
  }

  private entryValue(): number {
    const { random } = this;
    if (random.below(8) === 0) return random.word();
    if (random.below(3) === 0) return (this.destination() << 24) >>> 0;
    const masked = random.below(5) === 0 ? 0x10000 : 0;
    const mode = random.pick([0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7]);
    return (
      masked |
      random.pick([0, 0x8000]) |
      (random.below(2) << 13) |
      (random.below(2) << 11) |
      (mode << 8) |
      this.vector()
    );
  }

  /** What vCPUs see: pending interrupts and events. */
  compare(pendingBefore: readonly boolean[], kicksBefore: number): boolean[] {
    const { m, model } = this;
    const events = model.apics.flatMap((apic) =>
      apic.events.map((event) => `${event.split(" ")[0]} ${apic.id}${event.slice(event.split(" ")[0].length)}`),
    );
    if (events.length !== m.events.length || [...m.events].sort().join() !== events.sort().join())
      assert.fail(`${this.last}: events ${m.events.join()}, the model ${events.join()}`);
    m.events.length = 0;
    for (const apic of model.apics) apic.events.length = 0;
    const pending = m.apics.map((apic, n) => {
      const vector = apic.pendingVector();
      const plain = model.apics[n];
      if (vector !== plain.pending())
        assert.fail(`${this.last}: APIC ${n} has ${vector} pending, the model ${plain.pending()}`);
      const ext = apic.extIntPending();
      if (ext !== plain.extInt()) assert.fail(`${this.last}: APIC ${n} ExtINT ${ext}`);
      return vector >= 0 || ext;
    });
    if (m.kicks === kicksBefore && pending.some((now, n) => now && !pendingBefore[n]))
      assert.fail(`${this.last}: an interrupt became pending, and no vCPU was told`);
    return pending;
  }

  compareWhole(): void {
    const { m, model } = this;
    m.apics.forEach((apic, n) => {
      const plain = model.apics[n];
      const name = (register: number): string => `after ${this.last}: APIC ${n} register ${register.toString(16)}`;
      assert.equal(apic.readBase(), plain.base, name(0x1b));
      assert.equal(apic.arbitrationPriority(), plain.apr(), name(9));
      for (let register = 0; register < 0x40; register++) {
        // The current count is the timer's own business; and reading what does not exist is an error.
        if (
          register === 0x39 ||
          !(
            register === 2 ||
            register === 3 ||
            register === 0x2f ||
            (register >= 8 && register <= 0x28) ||
            (register >= 0x30 && register <= 0x3e)
          )
        )
          continue;
        if (plain.mode === 2) assert.equal(apic.readX2apic(register), plain.readMsr(register), name(register));
        else if (plain.mode === 1 && (register < 0x3a || register === 0x3e))
          assert.equal(apic.readMmio(register * 16, 4) >>> 0, plain.readPage(register * 16, 4), name(register));
      }
    });
    for (let word = 0; word < PINS * 2; word++) {
      m.ioapic.writeMmio(0, 4, 0x10 + word);
      const entry = model.entries[word >> 1];
      const wanted = word & 1 ? entry.high : entry.low;
      assert.equal(m.ioapic.readMmio(0x10, 4) >>> 0, wanted, `after ${this.last}: entry word ${word}`);
    }
    m.ioapic.writeMmio(0, 4, model.select);
    m.traces.length = 0;
    m.anomalies.length = 0;
  }
}

test(`local APICs, I/O APIC and MSI against plain models: ${WRITES} register writes`, () => {
  let writes = 0;
  for (let guest = 0; writes < WRITES; guest++) {
    const random = new Random(guest + 1);
    const pair = new Pair(IDS[guest % IDS.length], random);
    let pending: boolean[] = pair.m.apics.map(() => false);
    try {
      for (let step = 0; step < STEPS; step++) {
        const { kicks } = pair.m;
        pair.step();
        pending = pair.compare(pending, kicks);
        if (step % WHOLE_EVERY === 0) pair.compareWhole();
      }
      pair.compareWhole();
    } catch (error) {
      throw new Error(`guest ${guest}: ${(error as Error).message}`, { cause: error });
    }
    writes += pair.writes;
  }
});

/** A command byte of the 8259s: mostly one that goes on with what a driver does. */
function picByte(random: Random, port: number): number {
  if (port >= 0x4d0) return random.pick([0, 0x0c, 0x28, random.below(256)]);
  if (port & 1) return random.pick([0, 0, 0x30, 0x38, 0x04, 0x02, 0x01, 0x03, 0x11, 0x13, 0xfb, random.below(256)]);
  return random.pick([
    0x20,
    0x20,
    0x20,
    0x60 | random.below(8),
    0x0a,
    0x0b,
    0x0c,
    0x48,
    0x68,
    0x80,
    0xa0,
    0xc0 | random.below(8),
    0xe0 | random.below(8),
    0,
    0x11,
    random.below(256),
  ]);
}

test(`the pair of 8259s against a plain model: ${WRITES} register writes`, () => {
  let writes = 0;
  for (let guest = 0; writes < WRITES; guest++) {
    const random = new Random(0x8259 + guest);
    const pic = new Pic({ anomalies: { anomaly: () => undefined }, intr: () => undefined });
    const model = new PicModel();
    const pins = Array.from({ length: 16 }, (_, irq) => (irq === 2 ? undefined : pic.pin(irq)));
    const initialize = (): void => {
      const word4 = random.pick([1, 1, 1, 3, 0x11, 0x13, 0x1f]);
      for (const [base, vector, wiring] of [
        [0x20, 0x30, 0x04],
        [0xa0, 0x38, 0x02],
      ]) {
        for (const [port, value] of [
          [base, 0x11],
          [base + 1, vector],
          [base + 1, wiring],
          [base + 1, base === 0x20 ? word4 : word4 & 3],
          [base + 1, random.below(3) ? 0 : random.below(256)],
        ]) {
          pic.writePort(port, 1, value);
          model.write(port, value);
          writes++;
        }
      }
    };
    if (guest % 8) initialize();
    for (let step = 0; step < STEPS; step++) {
      const port = random.pick([0x20, 0x20, 0x21, 0xa0, 0xa0, 0xa1, random.pick([0x4d0, 0x4d1])]);
      let what = "";
      let got = 0;
      let wanted = 0;
      switch (random.below(10)) {
        case 0:
        case 1:
        case 2: {
          const irq = random.pick([0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
          const high = random.below(2) === 1;
          what = `IRQ ${irq} ${high}`;
          pins[irq]?.set(high);
          model.setIrq(irq, high);
          break;
        }
        case 3:
        case 4:
          what = "acknowledge";
          if (model.intr || random.below(8) === 0) {
            got = pic.acknowledge();
            wanted = model.acknowledge();
          }
          break;
        case 5:
          what = `read ${port.toString(16)}`;
          got = pic.readPort(port, 1);
          wanted = model.read(port);
          break;
        default: {
          if (random.below(200) === 0) {
            what = "initialization";
            initialize();
            break;
          }
          // An initialization that is not gone through leaves a chip silent: rarely.
          let value = picByte(random, port);
          if (!(port & 1) && port < 0x4d0 && value & 0x10 && random.below(20)) value &= ~0x10;
          what = `write ${port.toString(16)} ${value.toString(16)}`;
          pic.writePort(port, 1, value);
          model.write(port, value);
          writes++;
        }
      }
      if (got !== wanted || pic.pending() !== model.intr)
        assert.fail(
          `guest ${guest} step ${step}, ${what}: ${got}, INTR ${pic.pending()}; the model ${wanted}, INTR ${model.intr}`,
        );
    }
  }
});
