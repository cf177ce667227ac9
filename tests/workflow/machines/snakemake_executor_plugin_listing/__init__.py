"""An executor of Snakemake for tests: it runs nothing, and prints each job's declared files as a line of JSON."""

import json

from snakemake_interface_executor_plugins.executors.base import AbstractExecutor, SubmittedJobInfo
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecMode

common_settings = CommonSettings(
    non_local_exec=False,
    dryrun_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
)


class Executor(AbstractExecutor):
    def run_job(self, job: JobExecutorInterface) -> None:
        wildcards = dict(job.wildcards.items())
        print(json.dumps([job.name, wildcards, sorted(job.input), sorted(job.output)]))
        found = SubmittedJobInfo(job)
        self.report_job_submission(found)
        self.report_job_success(found)

    def get_exec_mode(self) -> ExecMode:
        raise NotImplementedError

    def handle_job_success(self, job: JobExecutorInterface) -> None:
        pass

    def handle_job_error(self, job: JobExecutorInterface) -> None:
        pass

    def cancel(self) -> None:
        pass

    def shutdown(self) -> None:
        pass
