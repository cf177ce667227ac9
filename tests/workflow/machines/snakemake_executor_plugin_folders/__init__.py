"""An executor of Snakemake for tests: each job runs in an empty folder, which is removed afterwards.

It stands for the executors of Kubernetes and of the clouds' batch services, and has their settings: nothing is shared
but the installed programs, the workflow's files come from the storage, and what a job leaves beside its declared files
is lost. The folders lie below $FOLDERS.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=True,
    job_deploy_sources=True,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)


class Executor(RemoteExecutor):
    def __post_init__(self) -> None:
        self.next_seconds_between_status_checks = 1
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run_job(self, job: JobExecutorInterface) -> None:
        folder = tempfile.mkdtemp(prefix=f"{job.name}-", dir=os.environ["FOLDERS"])
        command = self.format_job_exec(job)
        self.logger.info(f"{folder}: {command}")
        environment = os.environ | self.envvars() | {"XDG_CACHE_HOME": f"{folder}/cache"}
        self.processes[folder] = subprocess.Popen(["/bin/sh", "-c", command], cwd=folder, env=environment)
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=folder))

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        for each in active_jobs:
            code = self.processes[each.external_jobid].poll()
            if code is None:
                yield each
                continue
            shutil.rmtree(Path(each.external_jobid))
            if code:
                self.report_job_error(each)
            else:
                self.report_job_success(each)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        for each in active_jobs:
            self.processes[each.external_jobid].terminate()
