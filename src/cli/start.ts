// `skep start`, which is what `npm start` does: Debian's Linux to a shell, from packages in the cache.

import { SkepError } from "../errors.ts";
import { debianGuest, GuestFilesError } from "../host/node/debian-guest.ts";
import { buildInitramfs, VIRTIO_MODULES } from "../host/node/initramfs.ts";
import type { VirtualMachineOptions } from "../index.ts";
import type { RunOptions } from "./options.ts";

const BANNER = "Welcome to Debian's Linux on skep. exit powers the machine off; Ctrl-a x ends skep.";

async function files(): Promise<{ kernel: string; release: string; initrd: Uint8Array }> {
  try {
    const guest = await debianGuest({ flavour: "cloud" });
    const { kernel, release, busybox, modulesDir } = guest;
    const initrd = await buildInitramfs({ busybox, modulesDir, modules: VIRTIO_MODULES, banner: BANNER });
    return { kernel, release, initrd };
  } catch (error) {
    if (error instanceof GuestFilesError) throw new SkepError("file", error.message, { cause: error });
    throw error;
  }
}

/** The machine that `start` runs: the guest's files, and whatever the options say beyond them. */
export async function debianMachine(options: RunOptions): Promise<VirtualMachineOptions> {
  const { kernel, release, initrd } = await files();
  process.stderr.write(`skep: booting Linux ${release}, which takes some seconds (Ctrl-a x ends it, Ctrl-a h helps)\n`);
  const { columns, rows } = process.stdout;
  // The kernel hands what it does not know to init, as environment.
  const size = columns > 0 && rows > 0 ? ` LINES=${rows} COLUMNS=${columns}` : "";
  const commandLine = `console=ttyS0 quiet panic=-1 ${options.machine.commandLine ?? ""}${size}`.trim();
  return { ...options.machine, kernel, initrd, commandLine };
}
