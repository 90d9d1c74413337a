// Local APICs, an I/O APIC and message signalled interrupts together, written plainly from SDM Vol. 3A 11.6, 11.8.5, 11.11 and the 82093AA data
// sheet: every message asks every local APIC whether it is meant.

import { LocalApicModel, MODE, type ModelBus } from "./local-apic-model.ts";

export const PINS = 24;

interface Entry {
  low: number;
  high: number;
}

export class InterruptSystemModel implements ModelBus {
  readonly apics: LocalApicModel[];
  readonly entries: Entry[] = [];
  /** By pin, the levels of what drives it. */
  readonly sources: boolean[][] = [];
  select = 0;
  ioapicId = 0;
  private lastChosen = 0;

  constructor(ids: readonly number[], sourcesAPin: number) {
    this.apics = ids.map((id, position) => new LocalApicModel(this, position, id));
    for (let pin = 0; pin < PINS; pin++) {
      this.entries.push({ low: 0x10000, high: 0 });
      this.sources.push(new Array<boolean>(sourcesAPin).fill(false));
    }
  }

  // ---- Destinations (11.6.2) ----

  private isMeant(apic: LocalApicModel, destination: number, wide: boolean, logical: boolean): boolean {
    if (apic.mode === MODE.DISABLED) return false;
    if (destination === (wide ? 0xffffffff : 0xff)) return true;
    if (apic.mode === MODE.X2APIC) {
      if (!logical) return apic.id === destination;
      const own = apic.logical();
      return own >>> 16 === destination >>> 16 && (own & destination & 0xffff) !== 0;
    }
    if (destination >= 0x100) return false;
    if (!logical) return (apic.id & 0xff) === destination;
    const own = apic.ldr >>> 24;
    if (apic.dfr === 0xffffffff) return (own & destination) !== 0;
    if (apic.dfr === 0x0fffffff) return own >> 4 === destination >> 4 && (own & destination & 15) !== 0;
    return false;
  }

  private sendTo(targets: LocalApicModel[], mode: number, vector: number, level: boolean): boolean {
    let takers = targets;
    if (mode === 1) {
      const able = targets.filter((apic) => apic.accepts);
      const lowest = Math.min(...able.map((apic) => apic.apr()));
      const equal = able.filter((apic) => apic.apr() === lowest);
      takers = [];
      // Among equals the turn goes round, by position, beginning behind whoever was chosen last.
      for (let n = 1; n <= this.apics.length && takers.length === 0; n++) {
        const next = this.apics[(this.lastChosen + n) % this.apics.length];
        if (equal.includes(next)) takers.push(next);
      }
      if (able.length > 1) this.lastChosen = this.apics.indexOf(takers[0]);
    }
    let accepted = false;
    for (const apic of takers) if (apic.deliver(mode, vector, level)) accepted = true;
    return accepted;
  }

  private message(
    mode: number,
    vector: number,
    level: boolean,
    destination: number,
    wide: boolean,
    logical: boolean,
  ): boolean {
    const targets = this.apics.filter((apic) => this.isMeant(apic, destination, wide, logical));
    return this.sendTo(targets, mode, vector, level);
  }

  ipi(
    source: number,
    shorthand: number,
    mode: number,
    vector: number,
    destination: number,
    wide: boolean,
    logical: boolean,
  ): void {
    const enabled = this.apics.filter((apic) => apic.mode !== MODE.DISABLED);
    if (shorthand === 0) this.message(mode, vector, false, destination, wide, logical);
    else if (shorthand === 1) this.sendTo([this.apics[source]], mode, vector, false);
    else if (shorthand === 2) this.sendTo(enabled, mode, vector, false);
    else
      this.sendTo(
        enabled.filter((apic) => apic !== this.apics[source]),
        mode,
        vector,
        false,
      );
  }

  // ---- MSI (11.11) ----

  msi(address: bigint, data: number): void {
    if (address >> 20n !== 0xfeen) return;
    const low = Number(address & 0xfffffn);
    let mode = (data >> 8) & 7;
    const vector = data & 0xff;
    const level = (data & 0x8000) !== 0;
    if (mode === 3 || mode === 6) return;
    if (level && !(data & 0x4000)) return;
    if (mode === 0 && low & 8) mode = 1;
    this.message(mode, vector, level && mode <= 1, (low >> 12) & 0xff, false, (low & 4) !== 0);
  }

  // ---- I/O APIC ----

  private asserted(pin: number): boolean {
    return this.sources[pin].includes(true);
  }

  /** Only fixed and lowest-priority interrupts can be level triggered. */
  private isLevel(entry: Entry): boolean {
    return (entry.low & 0x8000) !== 0 && ((entry.low >> 8) & 7) <= 1;
  }

  private forward(pin: number, level: boolean): boolean {
    const { low, high } = this.entries[pin];
    const mode = (low >> 8) & 7;
    if (mode === 3 || mode === 6) return false;
    return this.message(mode, low & 0xff, level, high >>> 24, false, (low & 0x800) !== 0);
  }

  /** A level-triggered pin that is asserted, let through, and not in service is sent; it is in service once somebody accepts. */
  private sample(pin: number): void {
    const entry = this.entries[pin];
    if (!this.isLevel(entry) || entry.low & 0x14000 || !this.asserted(pin)) return;
    entry.low |= 0x4000;
    if (!this.forward(pin, true)) entry.low &= ~0x4000;
  }

  drive(pin: number, source: number, high: boolean): void {
    const before = this.asserted(pin);
    this.sources[pin][source] = high;
    if (before || !high) return;
    const entry = this.entries[pin];
    if (this.isLevel(entry)) this.sample(pin);
    else if (!(entry.low & 0x10000)) this.forward(pin, false);
  }

  eoi(vector: number): void {
    this.entries.forEach((entry, pin) => {
      if (!(entry.low & 0x4000) || (entry.low & 0xff) !== vector) return;
      entry.low &= ~0x4000;
      this.sample(pin);
    });
  }

  accepts(): void {
    for (let pin = 0; pin < PINS; pin++) this.sample(pin);
  }

  readIo(offset: number, size: number): number {
    let value = 0;
    if (offset === 0) value = this.select;
    if (offset === 0x10) {
      if (this.select === 0 || this.select === 2) value = this.ioapicId * 0x1000000;
      if (this.select === 1) value = 0x170020;
      if (this.select >= 0x10 && this.select < 0x40) {
        const entry = this.entries[(this.select - 0x10) >> 1];
        value = this.select & 1 ? entry.high : entry.low;
      }
    }
    return size === 4 ? value : value % 2 ** (size * 8);
  }

  writeIo(offset: number, size: number, value: number): void {
    if (offset === 0) this.select = value & 0xff;
    else if (offset === 0x40) this.eoi(value & 0xff);
    else if (offset === 0x10 && size === 4) this.writeEntry(value);
  }

  private writeEntry(value: number): void {
    if (this.select === 0) this.ioapicId = (value >>> 24) & 15;
    if (this.select < 0x10 || this.select >= 0x40) return;
    const pin = (this.select - 0x10) >> 1;
    const entry = this.entries[pin];
    if (this.select & 1) entry.high = (value & 0xff000000) >>> 0;
    else {
      const inService = value & 0x8000 ? entry.low & 0x4000 : 0;
      entry.low = (value & 0x1afff) | inService;
    }
    this.sample(pin);
  }
}
