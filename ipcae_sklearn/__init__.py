"""Feature selection with concrete autoencoders, for scikit-learn."""

from ipcae_sklearn._display import KPathDisplay
from ipcae_sklearn._greedy import greedy_columns, reconstruction_residual
from ipcae_sklearn._search import CAESelectorCV, IPCAESelectorCV
from ipcae_sklearn._selectors import CAESelector, IPCAESelector

__version__ = "0.1.0"

__all__ = [
    "CAESelector",
    "CAESelectorCV",
    "IPCAESelector",
    "IPCAESelectorCV",
    "KPathDisplay",
    "greedy_columns",
    "reconstruction_residual",
]
