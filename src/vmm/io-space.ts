// Who answers at a port or a guest-physical address that is no RAM. Ports are looked up in a table of all 65,536; memory-mapped ranges, of
// which there are some dozens, by bisection. Where nobody answers, reads give all ones, as a bus with pull-ups does.

import type { AccessSize, AnomalyLog, IoSpace, MmioHandler, PortHandler } from "./bus.ts";

const PORT_COUNT = 0x10000;

interface PortRange {
  readonly owner: string;
  readonly first: number;
  readonly count: number;
  readonly handler: PortHandler;
}

interface MmioRange {
  readonly owner: string;
  readonly base: number;
  readonly end: number;
  readonly handler: MmioHandler;
}

const hex = (value: number): string => `0x${value.toString(16)}`;

function allOnes(size: number): number {
  return 2 ** (8 * size) - 1;
}

/** A byte of a little-endian value. */
function byteOf(value: number, index: number): number {
  return (value >>> (8 * index)) & 0xff;
}

/** Called for accesses, when they are traced. */
export type AccessTrace = (line: string) => void;

/** Accesses of a processor to what is no RAM. */
export interface IoAccess {
  readPort(port: number, size: AccessSize): number;
  writePort(port: number, size: AccessSize, value: number): void;
  readMmio(gpa: number, size: AccessSize): number;
  writeMmio(gpa: number, size: AccessSize, value: number): void;
}

export class IoBus implements IoSpace, IoAccess {
  readonly statistics = { portReads: 0, portWrites: 0, mmioReads: 0, mmioWrites: 0, unclaimed: 0 };
  /** Set while accesses are traced. */
  portTrace: AccessTrace | undefined;
  mmioTrace: AccessTrace | undefined;
  private readonly log: AnomalyLog;
  /** Index in `portRanges` of each port's owner. */
  private readonly portOwner = new Uint16Array(PORT_COUNT);
  /** Index 0 is nobody. */
  private readonly portRanges: (PortRange | undefined)[] = [undefined];
  /** In ascending order, none overlapping another. */
  private readonly mmioRanges: MmioRange[] = [];
  /** The range of the latest access: drivers keep to one device for a while. */
  private latest: MmioRange | undefined;

  constructor(log: AnomalyLog) {
    this.log = log;
  }

  mapPorts(owner: string, first: number, count: number, handler: PortHandler): () => void {
    const text = `${hex(first)}-${hex(first + count - 1)}`;
    if (!(Number.isInteger(first) && count > 0 && first >= 0 && first + count <= PORT_COUNT))
      throw new RangeError(`${owner} claims ports ${text}, which are not all there`);
    for (let port = first; port < first + count; port++) {
      const other = this.portRanges[this.portOwner[port]];
      if (other !== undefined)
        throw new Error(`${owner} claims ports ${text}, of which ${other.owner} has ${hex(port)}`);
    }
    let index = this.portRanges.indexOf(undefined, 1);
    if (index < 0) index = this.portRanges.length;
    this.portRanges[index] = { owner, first, count, handler };
    this.portOwner.fill(index, first, first + count);
    let mapped = true;
    return () => {
      if (!mapped) return;
      mapped = false;
      this.portOwner.fill(0, first, first + count);
      this.portRanges[index] = undefined;
    };
  }

  mapMmio(owner: string, base: number, length: number, handler: MmioHandler): () => void {
    const end = base + length;
    const text = `${hex(base)}-${hex(end - 1)}`;
    if (!(Number.isSafeInteger(base) && base >= 0 && length > 0 && Number.isSafeInteger(end)))
      throw new RangeError(`${owner} claims addresses ${text}, which are none`);
    const at = this.upperBound(base);
    for (const other of [this.mmioRanges[at - 1], this.mmioRanges[at]]) {
      if (other !== undefined && base < other.end && other.base < end)
        throw new Error(`${owner} claims addresses ${text}, of which ${other.owner} has some`);
    }
    const range = { owner, base, end, handler };
    this.mmioRanges.splice(at, 0, range);
    return () => {
      const index = this.mmioRanges.indexOf(range);
      if (index >= 0) this.mmioRanges.splice(index, 1);
      if (this.latest === range) this.latest = undefined;
    };
  }

  readPort(port: number, size: AccessSize): number {
    this.statistics.portReads++;
    const value = this.portIn(port, size);
    this.portTrace?.(`in ${hex(port)} ${size} -> ${hex(value)}`);
    return value;
  }

  writePort(port: number, size: AccessSize, value: number): void {
    this.statistics.portWrites++;
    this.portTrace?.(`out ${hex(port)} ${size} <- ${hex(value)}`);
    this.portOut(port, size, value);
  }

  readMmio(gpa: number, size: AccessSize): number {
    this.statistics.mmioReads++;
    const value = this.mmioIn(gpa, size);
    this.mmioTrace?.(`read ${hex(gpa)} ${size} -> ${hex(value)}`);
    return value;
  }

  writeMmio(gpa: number, size: AccessSize, value: number): void {
    this.statistics.mmioWrites++;
    this.mmioTrace?.(`write ${hex(gpa)} ${size} <- ${hex(value)}`);
    this.mmioOut(gpa, size, value);
  }

  private portIn(port: number, size: AccessSize): number {
    const range = this.portRanges[this.portOwner[port]];
    if (port + size > (range === undefined ? port + 1 : range.first + range.count) && size > 1) {
      // Over the end of an owner's range the bus takes it by bytes; past the last port it starts at the first again.
      let value = 0;
      for (let i = 0; i < size; i++) value += this.portIn((port + i) & 0xffff, 1) * 2 ** (8 * i);
      return value;
    }
    if (range === undefined) return this.unclaimed(size);
    try {
      return range.handler.readPort(port, size) >>> 0;
    } catch (error) {
      this.failed(range.owner, error);
      return allOnes(size);
    }
  }

  private portOut(port: number, size: AccessSize, value: number): void {
    const range = this.portRanges[this.portOwner[port]];
    if (port + size > (range === undefined ? port + 1 : range.first + range.count) && size > 1) {
      for (let i = 0; i < size; i++) this.portOut((port + i) & 0xffff, 1, byteOf(value, i));
      return;
    }
    if (range === undefined) {
      this.unclaimed(size);
      return;
    }
    try {
      range.handler.writePort(port, size, value);
    } catch (error) {
      this.failed(range.owner, error);
    }
  }

  private mmioIn(gpa: number, size: AccessSize): number {
    const range = this.find(gpa);
    if (range === undefined) {
      // The beginning is nobody's, but the end may be somebody's.
      if (size === 1 || this.find(gpa + size - 1) === undefined) return this.unclaimed(size);
    } else if (gpa + size <= range.end) {
      try {
        return range.handler.readMmio(gpa - range.base, size) >>> 0;
      } catch (error) {
        this.failed(range.owner, error);
        return allOnes(size);
      }
    }
    let value = 0;
    for (let i = 0; i < size; i++) value += this.mmioIn(gpa + i, 1) * 2 ** (8 * i);
    return value;
  }

  private mmioOut(gpa: number, size: AccessSize, value: number): void {
    const range = this.find(gpa);
    if (range === undefined) {
      if (size === 1 || this.find(gpa + size - 1) === undefined) {
        this.unclaimed(size);
        return;
      }
    } else if (gpa + size <= range.end) {
      try {
        range.handler.writeMmio(gpa - range.base, size, value);
      } catch (error) {
        this.failed(range.owner, error);
      }
      return;
    }
    for (let i = 0; i < size; i++) this.mmioOut(gpa + i, 1, byteOf(value, i));
  }

  private find(gpa: number): MmioRange | undefined {
    const { latest } = this;
    if (latest !== undefined && gpa >= latest.base && gpa < latest.end) return latest;
    const range = this.mmioRanges[this.upperBound(gpa) - 1];
    if (range === undefined || gpa >= range.end) return undefined;
    this.latest = range;
    return range;
  }

  /** Index of the first range that starts behind `gpa`. */
  private upperBound(gpa: number): number {
    let low = 0;
    let high = this.mmioRanges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.mmioRanges[middle].base <= gpa) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private unclaimed(size: number): number {
    this.statistics.unclaimed++;
    return allOnes(size);
  }

  /** A device must not throw, whatever the guest does; if one does all the same, the machine goes on and the fault can be seen. */
  private failed(owner: string, error: unknown): void {
    this.log.anomaly(owner, `internal error: ${error instanceof Error ? error.message : String(error)}`);
  }
}
