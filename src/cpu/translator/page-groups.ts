// Accesses of a block that lie within some bytes of each other share one lookup in the TLB: pushes and pops, fields of a structure. The first
// makes sure that all of them lie in one page of RAM and fixes where that is; the others are plain loads and stores at a constant distance. Nothing
// in a block changes a mapping, and the write table never has a page that holds code, so what holds for the first holds to the block's end.

import { Local } from "../../wasm/code.ts";
import { sumWithConstant, type Val } from "../../wasm/value.ts";

/** A value as a distance from something that is not known, by number. */
interface Sum {
  readonly root: number;
  readonly delta: number;
}

/** Bytes in one page of RAM: from `low` to before `high`, as distances from a root. */
interface PageGroup extends Sum {
  readonly high: number;
  readonly write: boolean;
  /** Offset of the first byte in the memory of guest RAM. */
  readonly host: Local;
}

/** What is known at a place, to come back to. */
export interface GroupKnowledge {
  readonly registers: (Sum | undefined)[];
  readonly groups: readonly PageGroup[];
}

export class PageGroups {
  private readonly isRegister: (value: Local) => number | undefined;
  private readonly newLocal: () => Local;
  /** What values fixed in locals are. */
  private readonly sums = new WeakMap<Val, Sum>();
  /** Replaced, not changed, where a register is set, so that what was known before can be come back to. */
  private registers: (Sum | undefined)[] = [];
  private groups: readonly PageGroup[] = [];
  private roots = 0;
  private readonly hosts: Local[] = [];

  /** `isRegister`: the number of the general register that a local holds. */
  constructor(isRegister: (value: Local) => number | undefined, newLocal: () => Local) {
    this.isRegister = isRegister;
    this.newLocal = newLocal;
  }

  /** Nothing is known: at the start of a block, and where a handler may have done anything. */
  forget(): void {
    this.registers = new Array(16).fill(undefined);
    this.groups = [];
  }

  get knowledge(): GroupKnowledge {
    return { registers: this.registers, groups: this.groups };
  }

  return({ registers, groups }: GroupKnowledge): void {
    this.registers = registers;
    this.groups = groups;
  }

  private newRoot(): Sum {
    return { root: this.roots++, delta: 0 };
  }

  private sumOf(value: Val): Sum | undefined {
    if (value instanceof Local) {
      const register = this.isRegister(value);
      if (register === undefined) return this.sums.get(value);
      this.registers[register] ??= this.newRoot();
      return this.registers[register];
    }
    const parts = sumWithConstant(value);
    const base = parts === undefined ? undefined : this.sumOf(parts.base);
    if (parts === undefined || base === undefined) return undefined;
    const delta = base.delta + Number(parts.constant);
    return Math.abs(delta) < 2 ** 31 ? { root: base.root, delta } : undefined;
  }

  /** A value has been fixed in a local. */
  fixed(value: Val, local: Local): void {
    const sum = this.sumOf(value);
    if (sum !== undefined) this.sums.set(local, sum);
  }

  /** A register is about to be set; `conditional`: on one of several paths. */
  setRegister(number: number, value: Val, conditional: boolean): void {
    const sum = conditional ? undefined : this.sumOf(value);
    this.registers = this.registers.with(number, sum);
  }

  /** Where some bytes at an address are, as a host offset and a distance from it. What may be written may be read. */
  find(address: Val, bytes: number, write: boolean): { readonly host: Local; readonly offset: number } | undefined {
    const sum = this.sumOf(address);
    if (sum === undefined) return undefined;
    const found = this.groups.find(
      (group) =>
        group.root === sum.root &&
        (group.write || !write) &&
        group.delta <= sum.delta &&
        sum.delta + bytes <= group.high,
    );
    return found === undefined ? undefined : { host: found.host, offset: sum.delta - found.delta };
  }

  /** Notes bytes around an address that are in one page; gives the local for their place, or undefined where the address is no known sum. */
  add(address: Val, low: number, high: number, write: boolean): Local | undefined {
    const sum = this.sumOf(address);
    if (sum === undefined) return undefined;
    const host = this.hosts[this.groups.length] ?? this.newLocal();
    this.hosts[this.groups.length] = host;
    this.groups = [...this.groups, { root: sum.root, delta: sum.delta + low, high: sum.delta + high, write, host }];
    return host;
  }
}
