// Names of guest addresses: from an ELF file's symbol table (System V ABI, "Symbol Table"), or from text as System.map and /proc/kallsyms have it.

export interface GuestSymbol {
  readonly address: bigint;
  readonly name: string;
}

export type Symbols = readonly GuestSymbol[];

const ELF_MAGIC = 0x464c457f;
const SHT_SYMTAB = 2;
const STT_FUNC = 2;
const STT_NOTYPE = 0;
const decoder = new TextDecoder("latin1");

function isElf(bytes: Uint8Array): boolean {
  return bytes.length >= 64 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) === ELF_MAGIC;
}

/** Functions in the symbol tables of an ELF file of 32 or 64 bits; none where it is cut short or stripped. */
function elfSymbols(bytes: Uint8Array): Symbols {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = bytes[4] === 2;
  const symbols: GuestSymbol[] = [];
  try {
    const sections = wide ? Number(view.getBigUint64(40, true)) : view.getUint32(32, true);
    const size = view.getUint16(wide ? 58 : 46, true);
    const count = view.getUint16(wide ? 60 : 48, true);
    const section = (n: number): { type: number; offset: number; size: number; link: number } => {
      const at = sections + n * size;
      const word = (of64: number, of32: number): number =>
        wide ? Number(view.getBigUint64(at + of64, true)) : view.getUint32(at + of32, true);
      return {
        type: view.getUint32(at + 4, true),
        offset: word(24, 16),
        size: word(32, 20),
        link: view.getUint32(at + (wide ? 40 : 24), true),
      };
    };
    for (let n = 0; n < count; n++) {
      const table = section(n);
      if (table.type !== SHT_SYMTAB) continue;
      const strings = section(table.link);
      const step = wide ? 24 : 16;
      for (let at = table.offset; at + step <= table.offset + table.size; at += step) {
        const type = view.getUint8(at + (wide ? 4 : 12)) & 15;
        if (type !== STT_FUNC && type !== STT_NOTYPE) continue;
        const start = strings.offset + view.getUint32(at, true);
        const name = decoder.decode(bytes.slice(start, bytes.indexOf(0, start)));
        const address = wide ? view.getBigUint64(at + 8, true) : BigInt(view.getUint32(at + 4, true));
        if (name !== "" && address !== 0n) symbols.push({ address, name });
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return symbols;
}

/** Lines of an address, a letter and a name. */
function textSymbols(text: string): Symbols {
  return [...text.matchAll(/^([0-9a-f]+) +[tTwW] +(\S+)/gm)].map(([, address, name]) => ({
    address: BigInt(`0x${address}`),
    name,
  }));
}

export function parseSymbols(bytes: Uint8Array): Symbols {
  return isElf(bytes) ? elfSymbols(bytes) : textSymbols(decoder.decode(bytes.slice()));
}

/** Finds the symbol that an address lies behind. */
export class SymbolTable {
  private readonly sorted: Symbols;

  constructor(symbols: Symbols) {
    this.sorted = symbols.toSorted((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
  }

  /** Beyond `reach` bytes nothing is named. */
  find(address: bigint, reach = 0x100000n): string | undefined {
    let low = 0;
    let high = this.sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.sorted[middle].address <= address) low = middle + 1;
      else high = middle;
    }
    const found = this.sorted[low - 1];
    return found !== undefined && address - found.address < reach ? found.name : undefined;
  }
}
