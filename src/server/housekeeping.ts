import { schedule } from 'node-cron';

/**
 * Runs a task every ten seconds until it is stopped: what has left the windows, who is gone for good. In UTC: in a zone
 * with daylight saving time node-cron pauses for the hour that comes twice.
 */
export function keepHouse(task: () => void): { stop(): Promise<void> } {
  const job = schedule(everyTenSeconds, task, {
    timezone: 'UTC',
    name: 'housekeeping',
    noOverlap: true,
    // It would be a line in colours, past our log; and the next time is soon.
    suppressMissedWarning: true,
  });
  return {
    async stop() {
      await job.destroy();
    },
  };
}

const everyTenSeconds = '*/10 * * * * *';
