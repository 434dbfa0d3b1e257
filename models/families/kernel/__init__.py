"""IPCA on nonlinear functions of characteristics, and covariances from kernel matrices alone (`covariance`)."""

from models.families.kernel.covariance import kernel_covariance
from models.families.kernel.model import KernelIPCA

__all__ = ["KernelIPCA", "kernel_covariance"]
