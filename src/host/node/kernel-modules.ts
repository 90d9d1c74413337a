// The loadable modules of a Linux kernel: finding them by name, what they need, and the order to load them in.
// The package does not carry modules.dep (depmod makes it on the installed system), so dependencies are read from the modules:
// Linux, include/linux/module.h: section .modinfo holds NUL-terminated "tag=value" strings, `depends` and `softdep` among them.
// System V ABI, ELF-64: section headers and the section name table.

import { spawnSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { gunzipSync, zstdDecompressSync } from "node:zlib";

export interface KernelModule {
  /** The name as lsmod shows it, with underscores. */
  readonly name: string;
  readonly data: Uint8Array;
}

const decoder = new TextDecoder("latin1");

/** Module names are compared with `-` and `_` taken as the same. */
function canonical(name: string): string {
  return name.replaceAll("-", "_");
}

function moduleName(path: string): string {
  return canonical(basename(path).replace(/\.ko(\.\w+)?$/, ""));
}

async function readModule(path: string): Promise<Uint8Array> {
  const data = await readFile(path);
  if (path.endsWith(".gz")) return gunzipSync(data);
  if (path.endsWith(".zst")) return zstdDecompressSync(data);
  if (!path.endsWith(".xz")) return data;
  const xz = spawnSync("xz", ["--decompress", "--stdout"], { input: data, maxBuffer: 1 << 28 });
  if (xz.status !== 0) throw new Error(`${path} can't be unpacked: ${xz.error ? "'xz' is not installed" : xz.stderr}`);
  return xz.stdout;
}

/** The tags of .modinfo with their values, as often as each occurs. */
export function moduleInfo(elf: Uint8Array): Map<string, string[]> {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  const info = new Map<string, string[]>();
  if (elf.length < 64 || view.getUint32(0) !== 0x7f454c46 || elf[4] !== 2) throw new Error("not a 64-bit ELF file");
  const table = Number(view.getBigUint64(0x28, true));
  const entrySize = view.getUint16(0x3a, true);
  const count = view.getUint16(0x3c, true);
  if (entrySize < 64 || table + count * entrySize > elf.length)
    throw new Error("section headers lie beyond the end of the file");
  const section = (index: number) => {
    const at = table + index * entrySize;
    const offset = Number(view.getBigUint64(at + 0x18, true));
    return {
      name: view.getUint32(at, true),
      bytes: elf.subarray(offset, offset + Number(view.getBigUint64(at + 0x20, true))),
    };
  };
  const nameIndex = view.getUint16(0x3e, true);
  if (nameIndex >= count) throw new Error("no section names");
  const names = decoder.decode(section(nameIndex).bytes);
  for (let index = 0; index < count; index++) {
    const { name, bytes } = section(index);
    if (names.slice(name, names.indexOf("\0", name)) !== ".modinfo") continue;
    for (const entry of decoder.decode(bytes).split("\0")) {
      const equals = entry.indexOf("=");
      if (equals < 0) continue;
      const tag = entry.slice(0, equals);
      info.set(tag, [...(info.get(tag) ?? []), entry.slice(equals + 1)]);
    }
  }
  return info;
}

/**
 * The named modules and all they need, in the order to load them. Names that are built into the kernel are left out;
 * a name that the kernel has in neither form is an error.
 */
export async function kernelModules(directory: string, names: readonly string[]): Promise<KernelModule[]> {
  const paths = new Map<string, string>();
  for (const entry of await readdir(directory, { recursive: true })) {
    if (/\.ko(\.(gz|xz|zst))?$/.test(entry)) paths.set(moduleName(entry), join(directory, entry));
  }
  const builtin = new Set<string>();
  for (const line of (await readFile(join(directory, "modules.builtin"), "utf8")).split("\n")) {
    if (line !== "") builtin.add(moduleName(line));
  }

  const order: KernelModule[] = [];
  const seen = new Set<string>();
  const add = async (name: string, neededBy: string): Promise<void> => {
    if (seen.has(name) || builtin.has(name)) return;
    seen.add(name);
    const path = paths.get(name);
    if (path === undefined) throw new Error(`${directory} has no kernel module "${name}"${neededBy}`);
    const data = await readModule(path);
    const info = moduleInfo(data);
    for (const dependency of info.get("depends")?.join(",").split(",") ?? []) {
      if (dependency !== "") await add(canonical(dependency), `, which ${name} needs`);
    }
    // A soft dependency names a module or an alias of one. The alias of an algorithm is crypto-NAME, which the portable NAME_generic
    // always has (Linux, include/linux/crypto.h: MODULE_ALIAS_CRYPTO).
    for (const soft of info.get("softdep") ?? []) {
      for (const wish of /pre:([^:]*)(?:\s\w+:|$)/.exec(soft)?.[1].trim().split(/\s+/) ?? []) {
        const wanted = canonical(wish);
        const found = [wanted, `${wanted.replace(/^crypto_/, "")}_generic`].find((choice) => paths.has(choice));
        if (found !== undefined) await add(found, "");
      }
    }
    order.push({ name, data });
  };
  for (const name of names) await add(canonical(name), "");
  return order;
}
