// Opens what a machine is made of from files: kernel, initramfs, modules, disk images. Whatever cannot be used is a SkepError of one line that
// names the file; nothing is changed by trying.

import { readFileSync, statSync } from "node:fs";
import { basename } from "node:path";
import { SkepError } from "../../errors.ts";
import type { DiskConfig, KernelConfig } from "../../machine/config.ts";
import { MemoryBlockStorage } from "../memory-block.ts";
import { DiskImageError, FileBlockStorage, reason } from "./file-block.ts";

/** A file by path, or what would be in it. */
export type FileSource = string | Uint8Array;

export interface KernelFiles {
  readonly kernel: FileSource;
  readonly initrd?: FileSource;
  readonly commandLine: string;
  readonly modules: readonly { readonly file: FileSource; readonly arguments: string }[];
}

export interface DiskFile {
  /** The path of a raw image, or its bytes, which are then changed in memory only. */
  readonly file: FileSource;
  readonly readOnly: boolean;
  readonly serial?: string;
}

const MIB = 2 ** 20;

/** Reads a whole file that is to fit into the guest's memory. */
function read(source: FileSource, what: string, memoryBytes: number): Uint8Array {
  let size: number;
  try {
    size = typeof source === "string" ? statSync(source).size : source.length;
    if (size <= memoryBytes) return typeof source === "string" ? readFileSync(source) : source;
  } catch (error) {
    throw new SkepError("file", `cannot read ${what} ${String(source)}: ${reason(error)}`, { cause: error });
  }
  const name = typeof source === "string" ? ` ${source}` : "";
  const [mib, memory] = [size, memoryBytes].map((bytes) => Math.ceil(bytes / MIB));
  throw new SkepError(
    "boot",
    `${what}${name} of ${mib} MiB does not fit in the machine's memory of ${memory} MiB; give it more memory`,
  );
}

export function readKernelFiles(files: KernelFiles, memoryBytes: number): KernelConfig {
  const name = typeof files.kernel === "string" ? basename(files.kernel) : "kernel";
  return {
    name,
    commandLine: files.commandLine,
    bytes: read(files.kernel, "kernel", memoryBytes),
    ...(files.initrd === undefined ? {} : { initrd: read(files.initrd, "initramfs", memoryBytes) }),
    modules: files.modules.map((module) => {
      const file = typeof module.file === "string" ? basename(module.file) : "module";
      return {
        bytes: read(module.file, "module", memoryBytes),
        text: module.arguments === "" ? file : `${file} ${module.arguments}`,
      };
    }),
  };
}

/** Opens all images; where one cannot be used, those opened before are closed again. */
export function openDisks(disks: readonly DiskFile[]): DiskConfig[] {
  const opened: FileBlockStorage[] = [];
  try {
    return disks.map((disk, n) => {
      const serial = disk.serial ?? `skep-disk${n}`;
      if (typeof disk.file !== "string") return { storage: new MemoryBlockStorage(disk.file, disk.readOnly), serial };
      const storage = new FileBlockStorage(disk.file, { readOnly: disk.readOnly });
      opened.push(storage);
      return { storage, serial };
    });
  } catch (error) {
    for (const storage of opened) storage.close();
    if (error instanceof DiskImageError) throw new SkepError("disk", error.message, { cause: error });
    throw error;
  }
}
