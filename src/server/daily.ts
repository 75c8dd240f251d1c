import { schedule } from 'node-cron';

/**
 * Runs a task every day at midnight until it is stopped. In UTC: in a zone with daylight saving time an hour is missing
 * once a year. node-cron would print what the task throws and continue; here it is a bug, and ends the program.
 */
export function everyDay(task: () => void): { stop(): Promise<void> } {
  const job = schedule(midnight, () => orCrash(task), {
    timezone: 'UTC',
    name: 'daily',
    // node-cron would print a coloured line instead of using our log.
    suppressMissedWarning: true,
  });
  return {
    async stop() {
      await job.destroy();
    },
  };
}

export function orCrash(task: () => void): void {
  try {
    task();
  } catch (error) {
    // Outside of the caller, so that nothing catches it.
    setImmediate(() => {
      throw error;
    });
  }
}

const midnight = '0 0 * * *';
