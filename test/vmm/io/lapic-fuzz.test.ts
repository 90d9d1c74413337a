// Random guests: a local APIC against a plain model of SDM Vol. 3A 11.8, a whole set of controllers under arbitrary accesses, and
// save and restore in the middle of it.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ApicMode } from "../../../src/vmm/io/destination.ts";
import { restoreState, saveState, uncoveredFields } from "../../../src/vmm/state.ts";
import { ApicMachine } from "./apic-machine.ts";

function generator(start: number): (limit: number) => number {
  let seed = start >>> 0;
  return (limit) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * limit);
  };
}

/** The rules of acceptance and priority over plain sets, written without regard to speed. */
class Model {
  enabled = false;
  tpr = 0;
  spurious = 0xff;
  readonly irr = new Set<number>();
  readonly isr = new Set<number>();
  readonly tmr = new Set<number>();
  /** ESR bits since its last write, and as it reads. */
  errors = 0;
  esr = 0;
  errorLvt = 0x10000;

  deliver(vector: number, level: boolean): void {
    if (!this.enabled) return;
    if (vector < 16) {
      this.note(0x40, false);
      return;
    }
    if (level) this.tmr.add(vector);
    else this.tmr.delete(vector);
    this.irr.add(vector);
  }

  note(bit: number, fromErrorLvt: boolean): void {
    if (this.errors & bit) return;
    this.errors |= bit;
    if (fromErrorLvt || this.errorLvt & 0x10000) return;
    const vector = this.errorLvt & 0xff;
    if (vector < 16) this.note(0x40, true);
    else this.deliver(vector, false);
  }

  ppr(): number {
    const isrv = Math.max(0, ...this.isr);
    return this.tpr >> 4 >= isrv >> 4 ? this.tpr : isrv & 0xf0;
  }

  pending(): number {
    const vector = Math.max(-1, ...this.irr);
    return vector >= 0 && vector >> 4 > this.ppr() >> 4 ? vector : -1;
  }

  acknowledge(): number {
    const vector = this.pending();
    if (vector < 0) return this.spurious;
    this.irr.delete(vector);
    this.isr.add(vector);
    return vector;
  }

  eoi(): void {
    if (this.isr.size > 0) this.isr.delete(Math.max(...this.isr));
  }
}

function wordOf(set: Set<number>, word: number): number {
  let value = 0;
  for (const vector of set) if (vector >> 5 === word) value |= 1 << (vector & 31);
  return value >>> 0;
}

function compare(m: ApicMachine, model: Model, context: string): void {
  assert.equal(m.read(0x80), model.tpr, context);
  assert.equal(m.read(0xa0), model.ppr(), context);
  assert.equal(m.apic.pendingVector(), model.pending(), context);
  assert.equal(m.read(0x280), model.esr, context);
  for (let word = 0; word < 8; word++) {
    assert.equal(m.read(0x100 + word * 16), wordOf(model.isr, word), `${context} ISR${word}`);
    assert.equal(m.read(0x180 + word * 16), wordOf(model.tmr, word), `${context} TMR${word}`);
    assert.equal(m.read(0x200 + word * 16), wordOf(model.irr, word), `${context} IRR${word}`);
  }
}

describe("local APIC against a plain model", () => {
  test("20 guests of 400 steps", () => {
    for (let guest = 0; guest < 20; guest++) {
      const random = generator(guest);
      const m = new ApicMachine();
      const model = new Model();
      for (let step = 0; step < 400; step++) {
        const vector = random(6) === 0 ? random(256) : 16 * (1 + random(15)) + random(3);
        const what = random(12);
        switch (what) {
          case 0:
          case 1: {
            const level = random(3) === 0;
            m.apic.deliver(random(2), vector, level);
            model.deliver(vector, level);
            break;
          }
          case 2:
            m.write(0x80, vector);
            model.tpr = vector;
            break;
          case 3:
          case 4:
            assert.equal(m.apic.acknowledge(), model.acknowledge());
            break;
          case 5:
          case 6:
            m.eoi();
            model.eoi();
            break;
          case 7: {
            const enabled = random(5) !== 0;
            m.write(0xf0, (enabled ? 0x100 : 0) | vector);
            if (!enabled) model.errorLvt |= 0x10000;
            model.enabled = enabled;
            model.spurious = vector;
            break;
          }
          case 8:
            m.write(0x280, random(256));
            model.esr = model.errors;
            model.errors = 0;
            break;
          case 9:
            m.write(0x300, 0x40000 | vector);
            if (vector < 16) model.note(0x20, false);
            else model.deliver(vector, false);
            break;
          case 10: {
            const masked = random(2) * 0x10000;
            m.write(0x370, vector | masked);
            model.errorLvt = vector | (model.enabled ? masked : 0x10000);
            break;
          }
          default:
            m.read(0x40);
            model.note(0x80, false);
        }
        compare(m, model, `guest ${guest} step ${step} action ${what}`);
      }
    }
  });
});

/** One arbitrary access or event, the same for the same generator state; gives what could be seen of it. */
function stir(m: ApicMachine, pins: { set(asserted: boolean): void }[], random: (limit: number) => number): unknown {
  const position = random(m.apics.length);
  const apic = m.apics[position];
  const value =
    [random(2 ** 32), random(256), 1 << random(20), 0x20000 | random(256), 0x800 | random(0x20000)][random(5)] >>> 0;
  const size = ([4, 4, 4, 4, 1, 2] as const)[random(6)];
  switch (random(24)) {
    case 0:
    case 1:
    case 2:
      apic.writeMmio(random(8) ? random(64) * 16 : random(4096), size, value);
      return undefined;
    case 3:
      return apic.readMmio(random(8) ? random(64) * 16 : random(4096), size);
    case 4:
    case 5:
      return apic.writeX2apic(random(64), random(4) ? BigInt(value) : (BigInt(random(64)) << 32n) | BigInt(value));
    case 6:
      return apic.readX2apic(random(70));
    case 7:
      if (random(4)) return apic.readBase();
      return apic.writeBase([0xfee00000n, 0xfee00800n, 0xfee00800n, 0xfee00c00n, 0xfee00400n, 0xfed00900n][random(6)]);
    case 8:
      pins[random(pins.length)].set(random(2) === 1);
      return undefined;
    case 9:
      m.ioapic.writeMmio([0, 0x10, 0x10, 0x10, 0x40, random(256)][random(6)], size, random(2) ? random(0x40) : value);
      return m.ioapic.readMmio([0, 0x10, 0x20][random(3)], size);
    case 10:
      m.msi.sendMsi(0xfee00000n | BigInt(random(0x100000)), value);
      return undefined;
    case 11:
      apic.setLint(random(2) === 0 ? 0 : 1, random(2) === 1);
      return apic.extIntPending();
    case 12:
      if (random(8) === 0) apic.init();
      else apic.writeTscDeadline(BigInt(m.clock.now() + random(5000)));
      return apic.readTscDeadline();
    case 13:
    case 14:
      m.enable();
      return undefined;
    case 15:
      apic.setTpr(random(4) * 16);
      return undefined;
    case 16:
    case 17:
      m.redirect(random(24), 0x20 + random(200) + random(2) * 0x8000 + random(2) * 0x100, random(4) ? random(4) : 0xff);
      return undefined;
    case 18:
    case 19:
      pins[random(pins.length)].set(random(2) === 1);
      return undefined;
    case 20:
      apic.writeMmio(0x320, 4, random(3) * 0x20000 + 0x30 + random(100));
      apic.writeMmio(0x380, 4, random(300));
      return apic.readMmio(0x390, 4);
    case 21:
      m.eoi(position);
      return apic.pendingVector();
    default:
      m.advance(random(4000));
      return apic.pendingVector() >= 0 ? apic.acknowledge() : -1;
  }
}

function build(): { m: ApicMachine; pins: { set(asserted: boolean): void }[] } {
  const m = new ApicMachine({ ids: [0, 1, 2, 0x21] }).enable();
  const pins = [];
  for (let n = 0; n < 24; n++) pins.push(m.ioapic.pin(n, "a"), m.ioapic.pin(n, "b"));
  return { m, pins };
}

describe("controllers under arbitrary accesses", () => {
  test("nothing throws; vectors are legal; a restored copy goes on alike", () => {
    for (let guest = 0; guest < 40; guest++) {
      const random = generator(1000 + guest);
      const one = build();
      for (let step = 0; step < 2000; step++) {
        stir(one.m, one.pins, random);
        for (const apic of one.m.apics) {
          const vector = apic.pendingVector();
          assert.ok(vector === -1 || (vector >= 16 && vector < 256));
        }
      }
      const two = build();
      two.m.clock.set(one.m.clock.now());
      for (const [i, apic] of one.m.apics.entries()) restoreState(two.m.apics[i], saveState(apic));
      restoreState(two.m.ioapic, saveState(one.m.ioapic));
      restoreState(two.m.router, saveState(one.m.router));
      for (const { m } of [one, two]) {
        m.traces.length = 0;
        m.events.length = 0;
        m.anomalies.length = 0;
      }
      const seed = random(2 ** 31);
      const [first, second] = [generator(seed), generator(seed)];
      for (let step = 0; step < 400; step++) {
        assert.deepEqual(stir(two.m, two.pins, second), stir(one.m, one.pins, first), `guest ${guest} step ${step}`);
      }
      assert.deepEqual(two.m.traces, one.m.traces);
      assert.deepEqual(two.m.events, one.m.events);
      assert.deepEqual(two.m.anomalies, one.m.anomalies);
      for (const [i, apic] of one.m.apics.entries()) assert.deepEqual(saveState(two.m.apics[i]), saveState(apic));
      assert.ok(one.m.traces.length > 20, "the guest did something");
    }
  });

  test("no field is forgotten", () => {
    const { m } = build();
    assert.deepEqual(uncoveredFields(m.router), []);
    assert.deepEqual(uncoveredFields(m.ioapic), []);
    const apic = m.apic as unknown as { [part: string]: Parameters<typeof uncoveredFields>[0] };
    for (const object of [m.apic, apic.requests, apic.lvt, apic.timer]) assert.deepEqual(uncoveredFields(object), []);
    assert.deepEqual(Object.keys(saveState(m.apic).fields), Object.keys(m.apic.schema.fields));
  });

  test("a restore tells where the page is and that the vCPU should look, and makes no NMI", () => {
    const one = new ApicMachine().enable();
    one.write(0x360, 0x400);
    one.apic.setLint(1, true);
    one.apic.deliver(0, 0x55, false);
    one.apic.writeBase(0xfed00900n);
    one.apic.writeBase(0xfed00d00n);
    const moves: number[][] = [];
    const two = new ApicMachine({ apic: { onBaseChanged: (base, mode) => moves.push([base, mode]) } });
    moves.length = 0;
    restoreState(two.apic, saveState(one.apic));
    assert.deepEqual(moves, [[0xfed00000, ApicMode.X2APIC]]);
    assert.deepEqual(two.events, []);
    assert.ok(two.kicks > 0);
    assert.equal(two.apic.pendingVector(), 0x55);
  });
});
