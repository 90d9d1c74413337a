// A shared lock on a file, as flock(1) takes it, for each boot of a long run: who needs the machine for itself takes the exclusive one meanwhile.

import { spawn } from "node:child_process";

/** Does `work` under the lock; without a file at once. */
export async function whileLocked<T>(file: string | undefined, work: () => Promise<T>): Promise<T> {
  if (file === undefined) return work();
  // The lock is held for as long as cat reads.
  const holder = spawn("flock", ["-s", file, "sh", "-c", "echo locked; exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  try {
    await new Promise<void>((resolve, reject) => {
      holder.stdout.once("data", () => resolve());
      holder.once("error", reject);
      holder.once("close", () => reject(new Error(`flock could not lock ${file}`)));
    });
    return await work();
  } finally {
    holder.stdin.end();
  }
}
